#!/bin/sh
# Runs the scratch image as a container, with as little as it can be given: image.sh [PROFILE]
set -eu
cd "$(dirname "$0")/.."
export PROFILE="${1:-release}"
target=$(uname -m)-unknown-linux-musl
place=$(mktemp -d)
name=gameserver-test-$$
trap 'podman rm --force --volumes "$name" >/dev/null 2>&1; rm -rf "$place"' EXIT
fail() {
    echo "image.sh: $*" >&2
    podman logs "$name" >&2 || true
    exit 1
}

# Two layouts of one program are the same bytes, and others read them.
deploy/build-image.sh "$place/one" "$target"
deploy/build-image.sh "$place/two" "$target"
deploy/build-image.sh "$place/image.tar" "$target"
diff -r "$place/one" "$place/two"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
skopeo inspect "oci:$place/one:$version"
umoci unpack --rootless --image "$place/one:$version" "$place/unpacked"
files=$(cd "$place/unpacked/rootfs" && find . -type f | sort | tr '\n' ' ')
[ "$files" = "./etc/ssl/certs/ca-certificates.crt ./gameserver " ] || fail "it holds $files"
cmp "$place/unpacked/rootfs/gameserver" "target/$target/$PROFILE/gameserver"
bytes=$(find "$place/unpacked/rootfs" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
[ "$bytes" -le 8500000 ] || fail "it takes $bytes bytes"
echo "$bytes bytes"

# Not more descriptors than this machine gives, and runc, which needs less of the kernel than crun.
limit=$(sed -n 's/^Max open files *[^ ]* *\([^ ]*\).*/\1/p' /proc/self/limits)
printf '[containers]\ndefault_ulimits = ["nofile=%s:%s", "nproc=32768:32768"]\n[engine]\nruntime = "runc"\n' \
    "$limit" "$limit" >"$place/containers.conf"
export CONTAINERS_CONF="$place/containers.conf"
podman load --quiet --input "$place/image.tar"
admin=127.0.0.1:$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
podman run --detach --name "$name" --network=host --read-only --cap-drop=all \
    --security-opt=no-new-privileges --env GAMESERVER_LISTEN=127.0.0.1:0 \
    --env GAMESERVER_ADMIN_LISTEN="$admin" "localhost/gameserver:$version"
address=""
for _ in $(seq 100); do
    address=$(podman logs "$name" 2>&1 | sed -n 's/.*open http:\/\/\([^ ]*\) to play.*/\1/p')
    [ -z "$address" ] || break
    sleep 0.1
done
[ -n "$address" ] || fail "it does not start"
[ "$(podman inspect --format '{{.Config.User}}' "$name")" = 65532:65532 ] || fail "it runs as somebody else"
podman healthcheck run "$name" || fail "it is not healthy"
cargo run --locked --example load -- --url "http://$address" --game tictactoe --sockets 4 --seconds 2
podman kill --signal TERM "$name"
[ "$(podman wait "$name")" = 0 ] || fail "SIGTERM does not end it well"
podman logs "$name" 2>&1 | grep '"drained"' || fail "it did not drain"
