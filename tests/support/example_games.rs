//! The plugins of `examples/games`, built when a test first wants one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The module called `name`. One process builds them, others wait for it.
pub fn example_game(name: &str) -> PathBuf {
    static GAMES: OnceLock<PathBuf> = OnceLock::new();
    GAMES.get_or_init(build).join(name).with_extension("wasm")
}

fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into());
    let games = root.join(target).join("games");
    fs::create_dir_all(&games).unwrap();
    let lock = File::create(games.join(".lock")).unwrap();
    lock.lock().unwrap();
    // What a build sets for its tests is not meant for another build.
    let output = Command::new("sh")
        .arg(root.join("examples/games/build.sh"))
        .env("CARGO_TARGET_DIR", games.parent().unwrap())
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "examples/games/build.sh: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    games
}
