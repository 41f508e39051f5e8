#!/bin/sh
# Builds the example games: target/games/NAME.wasm, or games/NAME.wasm in CARGO_TARGET_DIR.
#
# The same bytes whoever builds them: the compilers are pinned (rust-toolchain.toml,
# noughts/package-lock.json), and paths are remapped. What is missing is named.
set -eu
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
case ${CARGO_TARGET_DIR:-} in
    "") target=$root/target ;;
    /*) target=$CARGO_TARGET_DIR ;;
    *) target=$root/$CARGO_TARGET_DIR ;;
esac
games=$target/games
TRIPLE=wasm32-unknown-unknown

missing() { # WHAT HOW-TO-GET-IT
    echo "examples/games/build.sh: missing: $1; $2" >&2
    exit 1
}
command -v cargo >/dev/null || missing cargo "install Rust with rustup"
command -v npm >/dev/null || missing "npm, of Node.js 20 or newer" "Debian: apt-get install npm"
sysroot=$(rustc --print sysroot)
if ! [ -d "$sysroot/lib/rustlib/$TRIPLE/lib" ]; then
    rustup target add "$TRIPLE" || missing "Rust's library for $TRIPLE" "rustup target add $TRIPLE"
fi
mkdir -p "$games"

# Panic messages hold paths, and what the folder of Cargo's registry is called depends on where it is
# mirrored.
cargo fetch --quiet --locked --target "$TRIPLE"
flags="--remap-path-prefix=$PWD=/games --remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rust"
for folder in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    flags="$flags --remap-path-prefix=$folder=/crates"
done
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
# A folder of its own: who builds the server at the same time need not wait.
export CARGO_TARGET_DIR="$target/games-build" CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="$flags"
cargo build --release --locked --target "$TRIPLE"

place() { # FILE NAME: at once, for a server that looks at the folder
    cmp -s "$1" "$games/$2.wasm" && return
    cp "$1" "$games/.$2.new"
    mv "$games/.$2.new" "$games/$2.wasm"
}
for name in concentration cycles; do
    place "$CARGO_TARGET_DIR/$TRIPLE/release/$name.wasm" $name
done

cd noughts
[ node_modules/.package-lock.json -nt package-lock.json ] ||
    npm ci --no-audit --no-fund --loglevel=error
built=$CARGO_TARGET_DIR/noughts.wasm
if ! [ -e "$built" ] || [ -n "$(find ./*.json assembly -newer "$built")" ]; then
    npm run --silent build -- --outFile "$built"
fi
place "$built" noughts
