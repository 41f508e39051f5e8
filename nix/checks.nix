# What `nix flake check` proves.
{
  nixpkgs,
  pkgs,
  craneLib,
  crates,
  packages,
  module,
}:
let
  inherit (pkgs) lib;
  inherit (pkgs.stdenv) hostPlatform;

  # The tests read the README and the documents, too.
  everything = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.difference ../. (
      lib.fileset.unions [
        ../flake.nix
        ../flake.lock
        ../nix
      ]
    );
  };
  common = {
    pname = "gameserver";
    src = everything;
    cargoVendorDir = crates;
    strictDeps = true;
    env.CARGO_PROFILE = "dev";
  };
  # Dependencies once for all checks of the same features.
  development =
    cargoExtraArgs:
    let
      arguments = common // {
        inherit cargoExtraArgs;
      };
    in
    arguments // { cargoArtifacts = craneLib.buildDepsOnly arguments; };
  server = development "--locked";
  operator = development "--locked --no-default-features --features operator";

  # What tests need that is no crate; a derivative of nixpkgs may lack PostgreSQL.
  postgresql = pkgs.postgresql or null;

  # That a package refers to nothing in the store is a condition of its build (nix/package.nix).
  isStatic =
    name:
    let
      program = lib.getExe packages.${name};
    in
    pkgs.runCommandCC "${name}-static" { } (
      ''
        ''${READELF:-readelf} --wide --program-headers --dynamic ${program} > headers
        if grep -E 'INTERP|NEEDED' headers; then
          echo "${program} is linked at run time" >&2
          exit 1
        fi
        cp headers $out
      ''
      + lib.optionalString (lib.hasInfix hostPlatform.parsed.cpu.name name) "${program} version >> $out"
    );

  hasContents =
    name:
    pkgs.runCommand "${name}-contents" { nativeBuildInputs = [ pkgs.python3 ]; } ''
      python3 ${./check-image.py} ${packages.${name}} ${packages.oci} > $out
    '';

  # One check for each of these packages.
  each =
    suffix: check: names:
    lib.listToAttrs (map (name: lib.nameValuePair "${name}-${suffix}" (check name)) names);
in
{
  fmt = craneLib.cargoFmt { inherit (common) pname src; };

  clippy = craneLib.cargoClippy (
    server // { cargoClippyExtraArgs = "--all-targets -- --deny warnings"; }
  );
  clippy-operator = craneLib.cargoClippy (
    operator // { cargoClippyExtraArgs = "--bin gameserver-operator -- --deny warnings"; }
  );

  test = craneLib.cargoTest (
    server
    // {
      # Without PostgreSQL, what needs no server. The chaos run plays the example games, whose compilers
      # npm would have to bring.
      cargoTestExtraArgs = if postgresql == null then "--lib" else "-- --skip chaos_";
      nativeBuildInputs = lib.optionals (postgresql != null) [
        postgresql
        pkgs.openssl
        pkgs.pgbouncer
        pkgs.go
        pkgs.prometheus.cli
      ];
      __darwinAllowLocalNetworking = true;
    }
  );
}
// lib.optionalAttrs hostPlatform.isLinux (
  {
    module = import ./module-test.nix { inherit pkgs module; };
  }
  // each "static" isStatic [
    "gameserver-x86_64-musl"
    "gameserver-aarch64-musl"
    "gameserver-operator-x86_64-musl"
    "gameserver-operator-aarch64-musl"
  ]
  // each "contents" hasContents [
    "image-server-amd64"
    "image-server-arm64"
    "image-operator-amd64"
    "image-operator-arm64"
  ]
)
// lib.optionalAttrs (builtins.pathExists ../deploy/crd.yaml) {
  # The definition is the generated one, the samples fit it. What needs an API server passes over it.
  deploy = craneLib.cargoTest (operator // { cargoTestExtraArgs = "--test operator"; });
}
# A virtual machine, where nixpkgs holds NixOS: a derivative may not.
// lib.optionalAttrs (hostPlatform.isLinux && builtins.pathExists "${nixpkgs}/nixos/lib/testing") {
  vm = import ./vm-test.nix { inherit pkgs module; };
}
