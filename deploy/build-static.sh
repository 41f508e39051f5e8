#!/bin/sh
# Builds for another platform with the plain toolchain: build-static.sh TARGET [CARGO-COMMAND [ARGUMENT…]]
#
# The command is `build` unless another is named; the programs are in target/TARGET/release. On Linux
# they are static, and the same bytes whoever builds them, wherever: the compilers are pinned (Rust's by
# rust-toolchain.toml, C's below), Rust links by itself, and paths are remapped. docs/build.md says more.
set -eu
cd "$(dirname "$0")/.."

# What compiles C for all targets on any machine: clang with the headers of each, from PyPI.
ZIG_VERSION=0.17.1

target=${1:?usage: build-static.sh TARGET [CARGO-COMMAND [ARGUMENT…]]}
shift
flags="" linker=""
case $target in
    x86_64-unknown-linux-musl) zig_target=x86_64-linux-musl ;;
    aarch64-unknown-linux-musl)
        zig_target=aarch64-linux-musl
        # Kernels for this processor have pages of 4, 16 or 64 KiB: the allocator must suit the largest.
        export JEMALLOC_SYS_WITH_LG_PAGE=16
        ;;
    x86_64-pc-windows-gnu)
        zig_target=x86_64-windows-gnu
        linker=x86_64-w64-mingw32-gcc
        ;;
    aarch64-apple-darwin) zig_target=aarch64-macos ;;
    x86_64-apple-darwin) zig_target=x86_64-macos ;;
    *)
        echo "build-static.sh: $target: this takes {x86_64,aarch64}-unknown-linux-musl, x86_64-pc-windows-gnu" \
            "and, to check alone, {aarch64,x86_64}-apple-darwin" >&2
        exit 2
        ;;
esac
case $target in
    *-linux-musl)
        linker=rust-lld
        flags="-Clinker-flavor=ld.lld -Crelocation-model=static"
        # The names of functions, which profiles need, take a quarter of the room.
        flags="$flags -Clink-arg=--compress-sections=.symtab=zlib -Clink-arg=--compress-sections=.strtab=zlib"
        ;;
esac

missing() { # WHAT HOW-TO-GET-IT
    echo "build-static.sh: missing: $1; $2" >&2
    exit 1
}
command -v cargo >/dev/null || missing cargo "install Rust with rustup"
sysroot=$(rustc --print sysroot)
if ! [ -d "$sysroot/lib/rustlib/$target/lib" ]; then
    rustup target add "$target" || missing "Rust's library for $target" "rustup target add $target"
fi
case $linker in
    *-gcc) command -v "$linker" >/dev/null || missing "$linker" "Debian: apt-get install gcc-mingw-w64-x86-64" ;;
esac

tools=$PWD/target/tools/zig-$ZIG_VERSION
if ! [ -d "$tools/ziglang" ]; then
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$tools" "ziglang==$ZIG_VERSION" ||
        missing "ziglang $ZIG_VERSION" "python3 -m pip install --target $tools ziglang==$ZIG_VERSION"
fi
zig=$tools/ziglang/zig
# Build scripts pass Rust's name of the target, which zig does not know.
cat >"$tools/cc-$target" <<END
#!/bin/sh
for argument do
    shift
    case \$argument in --target=*) ;; *) set -- "\$@" "\$argument" ;; esac
done
exec "$zig" cc -target $zig_target "\$@"
END
printf '#!/bin/sh\nexec "%s" ar "$@"\n' "$zig" >"$tools/ar"
chmod +x "$tools/cc-$target" "$tools/ar"

case $target in
    *-apple-darwin)
        # zig lacks a header of Apple's that jemalloc needs, and to check types nobody needs jemalloc.
        : >"$tools/libjemalloc.a"
        export JEMALLOC_OVERRIDE="$tools/libjemalloc.a"
        ;;
esac

remap() { # FROM TO
    flags="$flags --remap-path-prefix=$1=$2"
    c_flags="${c_flags:-} -ffile-prefix-map=$1=$2"
}
# What the folder of Cargo's registry is called depends on where it is mirrored.
cargo fetch --quiet --locked
for folder in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    remap "$folder" /crates
done
remap "$PWD" /gameserver
[ -z "${CARGO_TARGET_DIR:-}" ] || remap "$CARGO_TARGET_DIR" /gameserver/target
remap "$sysroot/lib/rustlib/src/rust" "/rustc/$(rustc -vV | sed -n 's/^commit-hash: //p')"

name=$(echo "$target" | tr - _)
upper=$(echo "$name" | tr '[:lower:]' '[:upper:]')
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
export "CC_$name=$tools/cc-$target" "AR_$name=$tools/ar" "CFLAGS_$name=$c_flags"
export "CARGO_TARGET_${upper}_RUSTFLAGS=$flags"
[ -z "$linker" ] || export "CARGO_TARGET_${upper}_LINKER=$linker"
# zig has no libgcc, in which jemalloc looks for what std brings along.
export ac_cv_lib_gcc__Unwind_Backtrace=yes
# No time stamps in what the archiver or a build script writes.
export SOURCE_DATE_EPOCH=0 ZERO_AR_DATE=1

[ $# -gt 0 ] || set -- build --release --locked
exec cargo "$@" --target "$target"
