#!/bin/sh
# Plays against the server as it is shipped: static.sh TARGET [PROFILE]
#
# Builds it, proves that it needs nothing at run time, and runs the black-box tests against it with both
# stores: all of them on its own kind of processor, those that play matches under qemu on another.
set -eu
cd "$(dirname "$0")/.."
target=${1:?usage: static.sh TARGET [PROFILE]}
profile=${2:-release}
processor=${target%%-*}
program=$PWD/target/$target/$profile/gameserver

deploy/build-static.sh "$target" build --profile "$profile" --locked --bin gameserver
file "$program"
if readelf --wide --program-headers --dynamic "$program" | grep -E 'INTERP|NEEDED'; then
    echo "static.sh: $program is linked at run time" >&2
    exit 1
fi
if strings --all "$program" | grep -F -e "$PWD" -e "${CARGO_HOME:-$HOME/.cargo}" -e "$(rustc --print sysroot)"; then
    echo "static.sh: $program says where it was built" >&2
    exit 1
fi

filters=""
if [ "$(uname -m)" != "$processor" ]; then
    emulator=$(command -v "qemu-$processor-static" || command -v "qemu-$processor") || {
        echo "static.sh: missing: qemu-$processor (Debian: apt-get install qemu-user-static)" >&2
        exit 1
    }
    printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$emulator" "$program" >"$program-emulated"
    chmod +x "$program-emulated"
    program=$program-emulated
    filters="-- --test-threads=1 matches:: pairs_wire:: relay::"
fi
for store in sqlite postgres; do
    # shellcheck disable=SC2086 # one word for each filter
    TEST_BINARY=$program TEST_STORE=$store cargo test --locked --test it $filters
done
