# One program for one target: what it depends on first and apart, so that a change of the code does
# not build that again.
{
  lib,
  craneLib,
  source,
  crates,
  program,
  target,
}:
let
  feature = if program == "gameserver-operator" then "operator" else "server";
  common = {
    pname = program;
    src = source;
    cargoVendorDir = crates;
    strictDeps = true;
    # The checks test, once for all targets.
    doCheck = false;
    cargoExtraArgs = "--locked --no-default-features --features ${feature} --bin ${program}";
    env = {
      # A constant, so that no commit's or file's time gets into a build.
      SOURCE_DATE_EPOCH = "1";
    }
    // target.env or { };
  };
in
craneLib.buildPackage (
  common
  // {
    # Built alone: what `cargo check` would leave, only the checks need.
    cargoArtifacts = craneLib.buildDepsOnly (common // { cargoCheckCommand = "true"; });
    # Cargo's profile says what is stripped; the machine's own tool may not know the target.
    dontStrip = true;
    meta = {
      description = "A multiplayer game server in one static binary";
      license = with lib.licenses; [
        mit
        asl20
      ];
      mainProgram = program;
    };
  }
  # Static, and so free of the store: it runs wherever it is copied to.
  // lib.optionalAttrs (target.static or false) { allowedReferences = [ ]; }
)
