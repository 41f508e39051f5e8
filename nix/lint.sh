#!/bin/sh
# Checks the Nix files as far as that needs no nixpkgs: they parse, are formatted, hold nothing that is
# not used, and the flake has the outputs and the pinned inputs that it should have.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:$PWD/target/tools/bin

tool() { # COMMAND CRATE VERSION
    command -v "$1" >/dev/null 2>&1 ||
        cargo install --quiet --debug --locked --root target/tools --version "$3" "$2"
}
tool nixfmt nixfmt_rs 0.5.3
tool deadnix deadnix 1.3.1

files=$(find flake.nix nix -name '*.nix')
# shellcheck disable=SC2086 # one word for each file
{
    # Its own store, so that it writes nothing.
    nix-instantiate --store dummy:// --parse $files >/dev/null
    nixfmt --check $files
    deadnix --fail $files
}
answer=$(nix-instantiate --store dummy:// --eval nix/eval-test)
[ "$answer" = true ] || {
    echo "nix/eval-test: $answer" >&2
    exit 1
}
