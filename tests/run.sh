#!/bin/sh
# Runs all tests: format, lints, Rust's tests, and a browser that plays.
#
# What is missing is installed where that can be done (Debian, as root); otherwise it is named.
set -eu
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
. tests/need.sh
need cc gcc
need "${CHROMIUM:-chromium}" chromium
need node nodejs
need npm npm
need openssl openssl
need go golang-go
need promtool prometheus
need kubectl kubernetes-client
[ -d /usr/lib/postgresql ] || need pg_ctl postgresql
[ -x /usr/sbin/pgbouncer ] || need pgbouncer pgbouncer
install_missing
if ! command -v cargo >/dev/null 2>&1; then
    echo "missing: cargo (Rust 1.89 or newer, with rustup: clippy and rustfmt too)" >&2
    exit 1
fi

say "format and lints"
cargo fmt --check
cargo clippy --locked --all-targets -- --deny warnings
cargo clippy --locked --no-default-features --features operator --all-targets -- --deny warnings

say "the example games"
games=examples/games/Cargo.toml
cargo fmt --manifest-path $games --all --check
cargo clippy --manifest-path $games --locked --all-targets -- --deny warnings
cargo test --manifest-path $games --locked
sh examples/games/build.sh

say "Rust's tests"
cargo test --locked

say "the chaos run notices when nothing keeps two nodes apart"
cargo test --locked --features unfenced --test chaos -- chaos_without

say "the same over PostgreSQL"
TEST_STORE=postgres cargo test --locked --test it

say "the operator, on an API server of Kubernetes if there is one"
cargo test --locked --no-default-features --features operator

say "a browser plays"
(cd tests/browser && npm ci --no-audit --no-fund --loglevel=error)
cargo build --locked
cd tests/browser
exec npm test --silent
