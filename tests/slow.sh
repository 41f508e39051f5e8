#!/bin/sh
# What takes too long for each change: all targets, the image, and whether builds are reproducible.
set -eu
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
. tests/need.sh
need file file
need readelf binutils
need qemu-aarch64-static qemu-user-static
need x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64
need podman podman runc
need skopeo skopeo
need umoci umoci
install_missing

for target in x86_64-unknown-linux-musl aarch64-unknown-linux-musl; do
    say "$target"
    sh tests/static.sh "$target"
done
say "x86_64-pc-windows-gnu"
deploy/build-static.sh x86_64-pc-windows-gnu build --release --locked --bin gameserver
say "macOS: types alone"
deploy/build-static.sh aarch64-apple-darwin check --locked
say "the image"
sh tests/image.sh
say "the same bytes in another directory"
exec sh tests/reproducible.sh
