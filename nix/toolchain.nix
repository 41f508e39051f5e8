# Rust's compiler, in the version that rust-toolchain.toml names, with std for `targets` beside the
# machine's own. The targets don't stand in that file: rustup would fetch them for every call of cargo.
{ pkgs }:
let
  inherit (pkgs.lib.importTOML ../rust-toolchain.toml) toolchain;
in
targets:
pkgs.rust-bin.stable.${toolchain.channel}.minimal.override {
  inherit targets;
  extensions = [
    "clippy"
    "rustfmt"
  ];
}
