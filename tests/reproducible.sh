#!/bin/sh
# Builds the same source in two other directories, and compares the programs: reproducible.sh [TARGET [PROFILE]]
#
# The second build has another home for Cargo, too, so that nothing of it can be in the program.
set -eu
cd "$(dirname "$0")/.."
target=${1:-x86_64-unknown-linux-musl}
profile=${2:-release}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

digests=""
for directory in one two/levels/deeper; do
    mkdir -p "$place/$directory"
    git ls-files -z | xargs -0 cp --parents -t "$place/$directory"
    (
        cd "$place/$directory"
        if [ "$directory" != one ]; then
            home=${CARGO_HOME:-$HOME/.cargo}
            mkdir "$place/cargo"
            for kept in config.toml registry git; do
                [ ! -e "$home/$kept" ] || cp -r "$home/$kept" "$place/cargo/"
            done
            export CARGO_HOME="$place/cargo"
        fi
        deploy/build-static.sh "$target" build --profile "$profile" --locked --bin gameserver
    )
    digests="$digests $(sha256sum <"$place/$directory/target/$target/$profile/gameserver" | cut -d' ' -f1)"
done
# shellcheck disable=SC2086 # two words
set -- $digests
echo "$1"
[ "$1" = "$2" ] || {
    echo "reproducible.sh: the second build is $2" >&2
    exit 1
}
