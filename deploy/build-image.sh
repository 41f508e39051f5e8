#!/bin/sh
# Builds the server's scratch image without Nix: build-image.sh OUT [TARGET…]
#
# OUT is a directory for an OCI layout, or a file that ends in .tar for podman and docker (then with one
# TARGET). Without a TARGET it is for x86_64 and aarch64. PROFILE names another of Cargo's profiles.
set -eu
out=$(realpath -m "${1:?usage: build-image.sh OUT [TARGET…]}")
shift
cd "$(dirname "$0")/.."
profile=${PROFILE:-release}

revision=$(git describe --always --abbrev=40 --exclude='*' --dirty 2>/dev/null || echo unknown)
[ $# -gt 0 ] || set -- x86_64-unknown-linux-musl aarch64-unknown-linux-musl
programs=""
for target do
    deploy/build-static.sh "$target" build --profile "$profile" --locked --bin gameserver
    case $target in x86_64-*) architecture=amd64 ;; *) architecture=arm64 ;; esac
    programs="$programs $architecture=target/$target/$profile/gameserver"
done
roots=$(cargo metadata --locked --format-version 1 | python3 -c '
import json, os, sys
roots = [p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "webpki-roots"]
print(os.path.join(os.path.dirname(max(roots)), "src/lib.rs"))')
# shellcheck disable=SC2086 # one word for each program
exec python3 deploy/image.py --manifest Cargo.toml --revision "$revision" --certificates "$roots" --out "$out" $programs
