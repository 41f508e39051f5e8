# What each program for Linux is made of, as CycloneDX, from Cargo.lock and the crates' own manifests.
{
  pkgs,
  craneLib,
  source,
  crates,
}:
let
  inherit (pkgs) lib;
  checksums = lib.listToAttrs (
    map (crate: lib.nameValuePair "${crate.name}@${crate.version}" crate.checksum) (
      lib.filter (crate: crate ? checksum) (lib.importTOML ../Cargo.lock).package
    )
  );
  tree =
    program: feature:
    lib.concatMapStrings
      (triple: ''
        cargo tree --locked --target ${triple} --no-default-features --features ${feature} \
          --edges no-dev --prefix none --no-dedupe --format '{p}|{l}' >> ${program}.tree
      '')
      [
        "x86_64-unknown-linux-musl"
        "aarch64-unknown-linux-musl"
      ]
    + ''
      sort -u ${program}.tree | jq --raw-input --null-input --sort-keys --arg program ${program} \
        --slurpfile checksums ${pkgs.writeText "checksums.json" (builtins.toJSON checksums)} \
        --from-file ${./sbom.jq} > "$out/${program}.cdx.json"
    '';
in
craneLib.mkCargoDerivation {
  pname = "gameserver";
  pnameSuffix = "-sbom";
  src = source;
  cargoVendorDir = crates;
  cargoArtifacts = null;
  doInstallCargoArtifacts = false;
  nativeBuildInputs = [ pkgs.jq ];
  buildPhaseCargoCommand = "mkdir -p $out";
  installPhaseCommand = tree "gameserver" "server" + tree "gameserver-operator" "operator";
}
