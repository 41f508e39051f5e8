//! The plugins that nodes are given, and other builds of them while matches are played.
//!
//! Each build shows something else: it calls a field of its views by another name. So a match that
//! went on with another build than the one it began with would be found out by what it shows.

use std::fs;
use std::path::Path;

use gameserver::games::wasm::version_of;
use tempfile::TempDir;

use crate::games::{PLUGINS, file, folder};

/// A field of each game's views that the rules don't look at, as it stands in the module.
const SHOWN: [(&str, &[u8]); 3] =
    [("noughts", b"b\0o\0a\0r\0d\0"), ("concentration", b"scores"), ("cycles", b"scoreswalls")];

/// A directory of games.
pub struct Plugins {
    dir: TempDir,
    builds: u8,
}

impl Plugins {
    /// All of them as they are.
    pub fn new() -> Self {
        let plugins = Self { dir: tempfile::tempdir().unwrap(), builds: 0 };
        plugins.place();
        plugins
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Puts another build of each in its place, and gives their versions.
    pub fn replace(&mut self) -> Vec<String> {
        self.builds += 1;
        self.place()
    }

    fn place(&self) -> Vec<String> {
        let folder = folder();
        let placed = PLUGINS.map(|(name, _)| {
            let code = build(name, fs::read(file(folder, name)).unwrap(), self.builds);
            let new = self.dir.path().join("new");
            fs::write(&new, &code).unwrap();
            fs::rename(new, file(self.dir.path(), name)).unwrap();
            version_of(&code)
        });
        placed.into()
    }
}

/// The module whose views call the last letter of a field by so many letters more.
fn build(name: &str, mut code: Vec<u8>, letters: u8) -> Vec<u8> {
    let (_, shown) = SHOWN.into_iter().find(|(game, _)| *game == name).unwrap();
    let last = shown.iter().rposition(|byte| *byte != 0).unwrap();
    let places: Vec<usize> = (0..code.len()).filter(|at| code[*at..].starts_with(shown)).collect();
    assert!(!places.is_empty(), "{name} shows no {shown:?}");
    for place in places {
        code[place + last] = b'a' + (code[place + last] - b'a' + letters) % 26;
    }
    code
}
