#!/bin/sh
# Runs all tests: format, lints, Rust's tests, and a browser that plays.
#
# What is missing is installed where that can be done (Debian, as root); otherwise it is named.
set -eu
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
missing=""
need() { # COMMAND DEBIAN-PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need cc gcc
need "${CHROMIUM:-chromium}" chromium
need node nodejs
need npm npm
need openssl openssl
need file file
need readelf binutils
need python3 python3
python3 -m pip --version >/dev/null 2>&1 || missing="$missing python3-pip"
[ -d /usr/lib/postgresql ] || need pg_ctl postgresql
[ -x /usr/sbin/pgbouncer ] || need pgbouncer pgbouncer
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing$missing"
        apt-get update -q
        # shellcheck disable=SC2086 # one word for each package
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
    else
        echo "missing:$missing (names of Debian's packages); install them and run this again" >&2
        exit 1
    fi
fi
if ! command -v cargo >/dev/null 2>&1; then
    echo "missing: cargo (Rust 1.89 or newer, with rustup: clippy and rustfmt too)" >&2
    exit 1
fi

say "format and lints"
cargo fmt --check
cargo clippy --locked --all-targets -- --deny warnings
cargo clippy --locked --no-default-features --features operator --bin gameserver-operator -- --deny warnings

say "Rust's tests"
cargo test --locked

say "the chaos run notices when nothing keeps two nodes apart"
cargo test --locked --features unfenced --test chaos -- chaos_without

say "the same over PostgreSQL"
TEST_STORE=postgres cargo test --locked --test it

say "the static program"
sh tests/static.sh "$(uname -m)-unknown-linux-musl" static-ci

say "a browser plays"
(cd tests/browser && npm ci --no-audit --no-fund --loglevel=error)
cargo build --locked
cd tests/browser
exec npm test --silent
