//! The example games as modules, built when a test first wants one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The games of `examples/games`, each beside the built-in one whose rules it has.
pub const PLUGINS: [(&str, &str); 3] =
    [("noughts", "tictactoe"), ("concentration", "pairs"), ("cycles", "arena")];

/// The folder with `NAME.wasm` for each of them.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(build)
}

/// Where a game's module lies in a folder.
pub fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).with_extension("wasm")
}

fn build() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let folder = target.join("games");
    fs::create_dir_all(&folder).unwrap();
    // Test programs run at the same time: one builds, and the others wait.
    let lock = File::create(folder.join(".lock")).unwrap();
    lock.lock().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/games/build.sh");
    let built = Command::new("sh").arg(script).env("CARGO_TARGET_DIR", target).output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "the example games can't be built:\n{said}");
    folder
}
