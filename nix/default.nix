# All that the flake offers for one system, put together.
{
  nixpkgs,
  pkgs,
  crane,
  revision,
  module,
}:
let
  inherit (pkgs) lib;
  inherit (pkgs.stdenv) hostPlatform;

  # What a program is built from, and nothing else: a change beside it builds nothing anew. Cargo
  # wants to see the tests and examples that its manifest names.
  source = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../.cargo
      ../Cargo.toml
      ../Cargo.lock
      ../build.rs
      ../src
      ../tests
      ../benches
      ../examples/load.rs
    ];
  };
  toolchain = import ./toolchain.nix { inherit pkgs; };
  targets = import ./targets.nix { inherit pkgs; };
  craneFor = target: (crane.mkLib pkgs).overrideToolchain (toolchain (target.rustTargets or [ ]));
  craneLib = craneFor { };
  crates = craneLib.vendorCargoDeps { src = source; };

  build =
    program: target:
    import ./package.nix {
      inherit
        lib
        source
        crates
        program
        target
        ;
      craneLib = craneFor target;
    };
  native = {
    gameserver = build "gameserver" { };
    gameserver-operator = build "gameserver-operator" { };
  };
  # gameserver-x86_64-musl, gameserver-operator-x86_64-windows, …
  cross = lib.concatMapAttrs (
    program: _:
    lib.mapAttrs' (name: target: lib.nameValuePair "${program}-${name}" (build program target)) targets
  ) native;

  image = import ./image.nix { inherit pkgs crates revision; };
  binaries = program: {
    amd64 = cross."${program}-x86_64-musl";
    arm64 = cross."${program}-aarch64-musl";
  };
  images =
    lib.concatMapAttrs
      (
        name: program:
        lib.mapAttrs' (
          architecture: binary:
          lib.nameValuePair "image-${name}-${architecture}" (image program { ${architecture} = binary; })
        ) (binaries program)
      )
      {
        server = "gameserver";
        operator = "gameserver-operator";
      };

  packages =
    native
    // cross
    // images
    // {
      default = native.gameserver;
      image = images."image-server-${if hostPlatform.isAarch64 then "arm64" else "amd64"}";
      oci = image "gameserver" (binaries "gameserver");
      sbom = import ./sbom.nix {
        inherit
          pkgs
          craneLib
          source
          crates
          ;
      };
    };
in
{
  inherit packages;

  apps = rec {
    gameserver = {
      type = "app";
      program = "${native.gameserver}/bin/gameserver";
      meta.description = "The game server";
    };
    gameserver-operator = {
      type = "app";
      program = "${native.gameserver-operator}/bin/gameserver-operator";
      meta.description = "Its Kubernetes operator";
    };
    default = gameserver;
  };

  checks = import ./checks.nix {
    inherit
      nixpkgs
      pkgs
      craneLib
      crates
      packages
      module
      ;
  };

  devShells.default = import ./shell.nix { inherit pkgs toolchain; };

  formatter = pkgs.writeShellApplication {
    name = "format";
    runtimeInputs = [ (toolchain [ ]) ] ++ lib.optional (pkgs ? nixfmt) pkgs.nixfmt;
    text = ''
      cargo fmt
      nixfmt flake.nix nix
    '';
  };
}
