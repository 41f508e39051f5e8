# What is done often. `just` lists it.

_default:
    @just --list --unsorted

# Plays: builds and starts the server with nothing configured.
run:
    cargo run --release

# Runs all tests, in a browser too; installs what it needs where it can.
test:
    sh tests/run.sh

# Runs Rust's tests alone.
test-rust *ARGS:
    cargo test {{ARGS}}

# Runs what takes long, too: all targets, the image in podman, and whether builds are reproducible.
test-slow:
    sh tests/slow.sh

# Builds the server for another target, static on Linux: just build-static aarch64-unknown-linux-musl
build-static TARGET *ARGS:
    deploy/build-static.sh {{TARGET}} {{ARGS}}

# Plays against the static builds: those for this processor directly, others under qemu.
test-static *TARGETS='x86_64-unknown-linux-musl aarch64-unknown-linux-musl':
    for target in {{TARGETS}}; do sh tests/static.sh $target || exit; done

# Builds the scratch image: an OCI layout for both processors, or FILE.tar with one TARGET.
image OUT *TARGETS:
    deploy/build-image.sh {{OUT}} {{TARGETS}}

# Builds the plugins of examples/games into target/games. Needs npm, and brings Rust's library for WebAssembly.
example-games:
    sh examples/games/build.sh

# Breaks nodes at random while bots play, and checks what they saw: just chaos SEED NODES BOTS MINUTES
chaos SEED='1' NODES='3' BOTS='16' MINUTES='2':
    CHAOS_SEED={{SEED}} CHAOS_NODES={{NODES}} CHAOS_BOTS={{BOTS}} CHAOS_SECONDS=$(({{MINUTES}} * 60)) cargo test --test chaos -- --nocapture chaos

# Shows that the chaos run fails without the fence: just chaos-unfenced SEED
chaos-unfenced SEED='1':
    CHAOS_SEED={{SEED}} cargo test --features unfenced --test chaos -- --nocapture chaos_without

# Measures: commits (moves beside pgbench), matchmaking (how fast), plugins (beside built-in games).
bench NAME='commits':
    cargo bench --bench {{NAME}}

# Formats and lints.
lint:
    cargo fmt
    cargo clippy --all-targets -- --deny warnings

# Loads a server that runs, and says what that costs: just load --server-pid PID
load *ARGS:
    cargo run --release --example load -- {{ARGS}}

# The operator on a real node, from nothing to gone. Wants root; KUBE names the scripts that start a node.
e2e:
    deploy/build-static.sh x86_64-unknown-linux-musl build --release --locked --bin gameserver
    deploy/build-static.sh x86_64-unknown-linux-musl build --profile operator --locked --no-default-features --features operator --bin gameserver-operator
    tests/operator/e2e/run.sh target/x86_64-unknown-linux-musl/release/gameserver target/x86_64-unknown-linux-musl/operator/gameserver-operator

# A thousand Gameservers on an API server: how long they take, what the operator weighs.
operator-bench:
    deploy/build-static.sh x86_64-unknown-linux-musl build --profile operator --locked --no-default-features --features operator --bin gameserver-operator
    TEST_OPERATOR=target/x86_64-unknown-linux-musl/operator/gameserver-operator cargo test --locked --no-default-features --features operator --test operator -- --ignored --nocapture thousand
