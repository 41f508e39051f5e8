//! Games of a directory: looks which plugins are there, and offers them in the catalog.
//!
//! A module is in the store before a match begins with it, so that any node can go on with that
//! match. It is polled, since nothing that tells of changes works on every platform and on what
//! Kubernetes mounts alike; looking at a few files once a second costs nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::games::wasm::Plugin;
use crate::games::wasm::interface::MODULE_BYTES_MAX;
use crate::games::{Catalog, NAME_BYTES_MAX, is_name};
use crate::store::Store;
use crate::telemetry::figures::{PLUGINS, PLUGINS_REFUSED};
use crate::telemetry::metrics::Held;
use crate::vital::Vital;

/// Plugins of one directory; those whose names come later are refused.
pub const PLUGINS_MAX: usize = 64;
/// How often the directory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What the names of plugins' files end with.
const EXTENSION: &str = "wasm";

/// The plugins of a directory.
pub struct Plugins {
    dir: PathBuf,
    catalog: Arc<Catalog>,
    store: Arc<Store>,
    /// What was found at the last look, by the game's name.
    found: BTreeMap<String, Found>,
    /// Whether it could be read at the last look.
    readable: bool,
    look_now: Arc<Notify>,
}

/// A file, and what became of it.
struct Found {
    stamp: Stamp,
    /// It has been read as it is now, whatever came of that.
    read: bool,
    /// Counts it while its game, or an earlier version of it, is offered.
    offered: Option<Held>,
}

/// What changes when a file does.
type Stamp = (Option<SystemTime>, u64);

impl Plugins {
    /// Offers what is there now. An error: the directory can't be read.
    pub async fn start(
        dir: PathBuf,
        catalog: Arc<Catalog>,
        store: Arc<Store>,
    ) -> io::Result<(Self, Arc<Notify>)> {
        fs::read_dir(&dir)?;
        let look_now = Arc::new(Notify::new());
        let told = Arc::clone(&look_now);
        let found = BTreeMap::new();
        let mut plugins = Self { dir, catalog, store, found, readable: true, look_now };
        plugins.look(true).await;
        Ok((plugins, told))
    }

    /// Follows the directory for as long as it runs; told to, it looks at once.
    pub async fn follow(mut self) {
        let _vital = Vital("the look at plugins");
        loop {
            let told = timeout(LOOK_INTERVAL, self.look_now.notified()).await.is_ok();
            self.look(told).await;
        }
    }

    /// Takes what has changed. Unless it is to be `at_once`, a file is left alone that is not as it was
    /// at the last look: it may be half written. At once, all are read again, changed or not.
    async fn look(&mut self, at_once: bool) {
        let files = match plugin_files(&self.dir) {
            Ok(files) => files,
            Err(error) => {
                if std::mem::replace(&mut self.readable, false) {
                    tracing::warn!(dir = %self.dir.display(), %error, "games stay as they are");
                }
                return;
            }
        };
        self.readable = true;
        let catalog = &self.catalog;
        self.found.retain(|name, found| {
            let stays = files.contains_key(name);
            if !stays && found.offered.is_some() {
                catalog.withdraw(name);
                tracing::info!(game = name, "its plugin is gone: no more matches begin");
            }
            stays
        });
        for (name, stamp) in files {
            let unknown = Found { stamp, read: false, offered: None };
            let new = !self.found.contains_key(&name);
            let found = self.found.entry(name.clone()).or_insert(unknown);
            let changed = std::mem::replace(&mut found.stamp, stamp) != stamp;
            found.read &= !changed && !at_once;
            if !found.read && (at_once || !(new || changed)) {
                self.take(&name).await;
            }
        }
    }

    /// Offers a file's game, or says why not.
    async fn take(&mut self, name: &str) {
        let file = self.dir.join(format!("{name}.{EXTENSION}"));
        let taken = self.load(name, &file).await;
        let Some(found) = self.found.get_mut(name) else { return };
        match taken {
            Ok(Some(plugin)) => {
                let version = plugin.info().version.clone();
                self.catalog.offer(plugin);
                found.offered.get_or_insert_with(|| PLUGINS.hold());
                found.read = true;
                tracing::info!(game = name, version, "its plugin is ready");
            }
            Ok(None) => found.read = true,
            Err(Refused::File(why)) => {
                found.read = true;
                PLUGINS_REFUSED.increment();
                let stays = found.offered.is_some();
                tracing::error!(file = %file.display(), why, stays, "is no game: see docs/plugins.md");
            }
            // It is read again at the next look.
            Err(Refused::Store(error)) => {
                tracing::warn!(game = name, %error, "its plugin can't be kept");
            }
        }
    }

    /// A file's game, kept in the store; `None` if it is offered already.
    async fn load(&self, name: &str, file: &Path) -> Result<Option<Arc<Plugin>>, Refused> {
        check_name(name, &self.catalog).map_err(Refused::File)?;
        if self.found.values().filter(|found| found.offered.is_some()).count() >= PLUGINS_MAX
            && self.catalog.find(name).is_none()
        {
            let why = format!("there are {PLUGINS_MAX} plugins: that is enough");
            return Err(Refused::File(why));
        }
        let (called, file) = (name.to_owned(), file.to_owned());
        let loaded = spawn_blocking(move || load(&called, &file));
        let loaded = loaded.await.unwrap_or_else(|panic| Err(panic.to_string()));
        let (plugin, code) = loaded.map_err(Refused::File)?;
        let plugin = Arc::new(plugin);
        let version = &plugin.info().version;
        if self.catalog.find(name).is_some_and(|now| now.info().version == *version) {
            return Ok(None);
        }
        let kept = self.store.keep_module(version.clone(), code).await;
        kept.map_err(|error| Refused::Store(error.to_string()))?;
        Ok(Some(plugin))
    }
}

/// Why a file's game is not offered.
enum Refused {
    /// It is none.
    File(String),
    /// The store did not take it: that passes.
    Store(String),
}

/// The games' names that files of a directory stand for, and what tells whether those change.
fn plugin_files(dir: &Path) -> io::Result<BTreeMap<String, Stamp>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        let Some(name) = path.file_stem() else { continue };
        // What has gone meanwhile is gone; links lead to what they name.
        let Ok(file) = fs::metadata(&path) else { continue };
        if file.is_file() {
            let stamp = (file.modified().ok(), file.len());
            files.insert(name.to_string_lossy().into_owned(), stamp);
        }
    }
    Ok(files)
}

/// The game that a file is once it lies in a directory of games, and its bytes. An error says why it
/// is none.
pub fn game_of(file: &Path, catalog: &Catalog) -> Result<(Plugin, Vec<u8>), String> {
    if file.extension().is_none_or(|extension| extension != EXTENSION) {
        return Err(format!("a game's file is called NAME.{EXTENSION}"));
    }
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    check_name(&name, catalog)?;
    load(&name, file)
}

/// Whether a plugin may have a name.
fn check_name(name: &str, catalog: &Catalog) -> Result<(), String> {
    if !is_name(name) {
        return Err(format!(
            "a game's name, and so the file's, is 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -"
        ));
    }
    if catalog.is_taken(name) {
        return Err(format!("the server has a game {name} of its own: rename the file"));
    }
    Ok(())
}

fn load(name: &str, file: &Path) -> Result<(Plugin, Vec<u8>), String> {
    let code = read(file).map_err(|error| error.to_string())?;
    Plugin::load(name, &code).map(|plugin| (plugin, code))
}

/// Reads a module; of a file that is too large no more than tells that it is.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut code = Vec::new();
    File::open(file)?.take(MODULE_BYTES_MAX as u64 + 1).read_to_end(&mut code)?;
    Ok(code)
}
