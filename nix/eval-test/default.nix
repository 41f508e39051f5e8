# What of the flake can be evaluated without its inputs: which outputs there are, and that the lock
# file fits the flake. `nix-instantiate --eval nix/eval-test` says true, or what is wrong.
let
  flake = import ../../flake.nix;
  lock = builtins.fromJSON (builtins.readFile ../../flake.lock);
  manifest = builtins.fromTOML (builtins.readFile ../../Cargo.toml);
  inherit (builtins.fromTOML (builtins.readFile ../../rust-toolchain.toml)) toolchain;
  inherit (builtins) attrNames mapAttrs;

  self = flake.outputs {
    inherit self;
    nixpkgs.outPath = toString ./nixpkgs.nix;
    crane = { };
    rust-overlay.overlays.default = { };
  };

  same =
    what: got: expected:
    got == expected || throw "${what}: ${builtins.toJSON got}, not ${builtins.toJSON expected}";
  sorted = builtins.sort builtins.lessThan;

  packages = sorted [
    "default"
    "gameserver"
    "gameserver-aarch64-musl"
    "gameserver-x86_64-musl"
    "gameserver-x86_64-windows"
    "gameserver-operator"
    "gameserver-operator-aarch64-musl"
    "gameserver-operator-x86_64-musl"
    "gameserver-operator-x86_64-windows"
    "image"
    "image-operator-amd64"
    "image-operator-arm64"
    "image-server-amd64"
    "image-server-arm64"
    "oci"
    "sbom"
  ];
  everywhere = [
    "clippy"
    "clippy-operator"
  ]
  ++ (if builtins.pathExists ../../deploy/crd.yaml then [ "deploy" ] else [ ])
  ++ [
    "fmt"
    "test"
  ];
  onLinux = [
    "gameserver-aarch64-musl-static"
    "gameserver-operator-aarch64-musl-static"
    "gameserver-operator-x86_64-musl-static"
    "gameserver-x86_64-musl-static"
    "image-operator-amd64-contents"
    "image-operator-arm64-contents"
    "image-server-amd64-contents"
    "image-server-arm64-contents"
    "module"
  ];
  linux = sorted (everywhere ++ onLinux);
  systems = [
    "aarch64-darwin"
    "aarch64-linux"
    "x86_64-linux"
  ];

  outputs = {
    apps = mapAttrs (_: attrNames) self.apps;
    checks = mapAttrs (_: attrNames) self.checks;
    devShells = mapAttrs (_: attrNames) self.devShells;
    packages = mapAttrs (_: attrNames) self.packages;
    formatter = attrNames self.formatter;
    nixosModules = attrNames self.nixosModules;
  };
  bySystem =
    value:
    builtins.listToAttrs (
      map (name: {
        inherit name value;
      }) systems
    );

  # Each input as the lock file has it, where the flake asks for it.
  locked = mapAttrs (_: node: lock.nodes.${node}) lock.nodes.root.inputs;
  url =
    node:
    let
      inherit (node) original;
      ref = if original ? ref then "/${original.ref}" else "";
    in
    "${original.type}:${original.owner}/${original.repo}${ref}";
  pinned =
    name: node:
    same "${name} in flake.lock" (url node) flake.inputs.${name}.url
    && same "${name}: owner and repository" { inherit (node.locked) owner repo; } {
      inherit (node.original) owner repo;
    }
    && builtins.match "[0-9a-f]{40}" node.locked.rev != null
    && builtins.match "sha256-[A-Za-z0-9+/]{43}=" node.locked.narHash != null
    || throw "${name}: flake.lock does not pin it";
in
same "the outputs" (attrNames self) (attrNames outputs)
&& same "apps" outputs.apps (bySystem [
  "default"
  "gameserver"
  "gameserver-operator"
])
&& same "checks" outputs.checks {
  aarch64-darwin = everywhere;
  aarch64-linux = linux;
  x86_64-linux = linux;
}
&& same "devShells" outputs.devShells (bySystem [ "default" ])
&& same "packages" outputs.packages (bySystem packages)
&& same "formatter" outputs.formatter systems
&& same "nixosModules" outputs.nixosModules [
  "default"
  "gameserver"
]
&& same "the version of flake.lock" lock.version 7
&& same "the inputs in flake.lock" (attrNames locked) (attrNames flake.inputs)
&& builtins.all (name: pinned name locked.${name}) (attrNames locked)
&& same "what rust-overlay follows" locked.rust-overlay.inputs { nixpkgs = [ "nixpkgs" ]; }
&& same "inputs that are inputs of none" (attrNames lock.nodes) (
  sorted ([ "root" ] ++ attrNames flake.inputs)
)
&& (
  builtins.match "[0-9]+\\.[0-9]+\\.[0-9]+" toolchain.channel != null
  || throw "rust-toolchain.toml: ${toolchain.channel} is not one version"
)
&& (
  builtins.compareVersions toolchain.channel manifest.package.rust-version >= 0
  || throw "rust-toolchain.toml: older than the rust-version of Cargo.toml"
)
# Whatever is listed here, rustup fetches before each call of cargo on a machine that lacks it.
&& same "rust-toolchain.toml" (attrNames toolchain) [ "channel" ]
