#!/bin/sh
# What takes too long for each change: all targets, the image, and whether builds are reproducible.
set -eu
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
missing=""
need() { # COMMAND DEBIAN-PACKAGE…
    command=$1
    shift
    command -v "$command" >/dev/null 2>&1 || missing="$missing $*"
}
need file file
need readelf binutils
need qemu-aarch64-static qemu-user-static
need x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64
need podman podman runc
need skopeo skopeo
need umoci umoci
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "missing:$missing (names of Debian's packages); install them and run this again" >&2
        exit 1
    fi
    say "installing$missing"
    apt-get update -q
    # shellcheck disable=SC2086 # one word for each package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
fi

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
