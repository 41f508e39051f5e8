# All that `just` needs.
{ pkgs, toolchain }:
let
  inherit (pkgs) lib;
  names = [
    "just"
    # The tests.
    "postgresql"
    "pgbouncer"
    "openssl"
    "nodejs"
    "curl"
    "jq"
    "python3"
    # Images.
    "skopeo"
    "umoci"
    "podman"
    "qemu-user"
    # This folder.
    "nixfmt"
    "deadnix"
  ]
  ++ lib.optional pkgs.stdenv.hostPlatform.isLinux "chromium";
  # A derivative of nixpkgs may lack some.
  tools = lib.filter (tool: tool != null) (map (name: pkgs.${name} or null) names);
in
(pkgs.mkShell or pkgs.stdenv.mkDerivation) {
  name = "gameserver";
  nativeBuildInputs = [
    (toolchain [
      "x86_64-unknown-linux-musl"
      "aarch64-unknown-linux-musl"
      "x86_64-pc-windows-gnu"
    ])
  ]
  ++ tools;
}
