{
  description = "A multiplayer game server in one static binary";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";
    crane.url = "github:ipetkov/crane";
    rust-overlay = {
      url = "github:oxalica/rust-overlay";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs =
    {
      self,
      nixpkgs,
      crane,
      rust-overlay,
    }:
    let
      bySystem = builtins.listToAttrs (
        map
          (system: {
            name = system;
            value = import ./nix {
              inherit nixpkgs crane;
              module = self.nixosModules.gameserver;
              revision = self.rev or self.dirtyRev or "unknown";
              pkgs = import nixpkgs {
                inherit system;
                overlays = [ rust-overlay.overlays.default ];
              };
            };
          })
          [
            "x86_64-linux"
            "aarch64-linux"
            "aarch64-darwin"
          ]
      );
      each = kind: builtins.mapAttrs (_: outputs: outputs.${kind}) bySystem;
    in
    {
      packages = each "packages";
      apps = each "apps";
      devShells = each "devShells";
      checks = each "checks";
      formatter = each "formatter";
      nixosModules = rec {
        gameserver = import ./nix/module.nix self;
        default = gameserver;
      };
    };
}
