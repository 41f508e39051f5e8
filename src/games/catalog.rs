//! The games that this server has: those built in, and relay games under names of their own.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use serde::Deserialize;

use super::wasm::{Loaded, Plugin};
use super::{BadOption, Game, GameInfo, GameType, NoStart, Setup, arena, pairs, relay, tictactoe};

/// Longest name of a game, in bytes.
pub const NAME_BYTES_MAX: usize = 32;

/// A relay game under a name of its own, as the one who runs the server describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayGame {
    /// See [`GameInfo::name`].
    pub name: String,
    /// See [`GameInfo::title`].
    pub title: String,
    /// See [`GameInfo::description`].
    pub description: String,
}

/// The names of the built-in games, in the order that lobbies show.
pub const BUILT_IN: [&str; 4] = [tictactoe::NAME, pairs::NAME, arena::NAME, relay::NAME];

/// Whether a built-in game has this name, offered or not.
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(&name)
}

/// Whether a game may have this name.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// All games, in the order that lobbies show: plugins come last, by name.
pub struct Catalog {
    fixed: Vec<Arc<dyn GameType>>,
    plugins: RwLock<Plugins>,
}

/// What comes and goes while the server runs.
#[derive(Default)]
struct Plugins {
    offered: BTreeMap<String, Arc<Plugin>>,
    /// Those that a match may still be played with, offered or not, by name and version.
    known: BTreeMap<(String, String), Weak<Plugin>>,
}

impl Catalog {
    /// The built-in games, or those of them that are `offered`, and `relay_games`, whose names differ
    /// from theirs and from each other.
    pub fn new(offered: Option<&[String]>, relay_games: Vec<RelayGame>) -> Self {
        let built_in = [
            BuiltIn { info: tictactoe::info(), start: tictactoe::start },
            BuiltIn { info: pairs::info(), start: pairs::start },
            BuiltIn { info: arena::info(), start: arena::start },
            BuiltIn { info: relay::info(relay::built_in()), start: relay::start },
        ];
        let named = relay_games
            .into_iter()
            .map(|game| BuiltIn { info: relay::info(game), start: relay::start });
        let is_offered =
            |game: &BuiltIn| offered.is_none_or(|offered| offered.contains(&game.info.name));
        let types = built_in.into_iter().filter(is_offered).chain(named);
        let fixed = types.map(|game| Arc::new(game) as Arc<dyn GameType>).collect();
        Self { fixed, plugins: RwLock::default() }
    }

    /// The game with this name, as matches begin now.
    pub fn find(&self, name: &str) -> Option<Arc<dyn GameType>> {
        let plugin = || Some(playable(self.plugins().offered.get(name)?));
        self.find_fixed(name).cloned().or_else(plugin)
    }

    /// The rules that a match began with, if they are at hand.
    pub fn find_version(&self, name: &str, version: &str) -> Option<Arc<dyn GameType>> {
        if let Some(fixed) = self.find_fixed(name).filter(|game| game.info().version == version) {
            return Some(Arc::clone(fixed));
        }
        let known = self.plugins().known.get(&(name.into(), version.into())).cloned();
        known.and_then(|plugin| plugin.upgrade()).map(|plugin| playable(&plugin))
    }

    /// What there is to know of each.
    pub fn list(&self) -> Vec<GameInfo> {
        let plugins = self.plugins();
        let fixed = self.fixed.iter().map(|game| game.info());
        fixed.chain(plugins.offered.values().map(|plugin| plugin.info())).cloned().collect()
    }

    /// Whether a game that is always there has this name, so that no plugin can.
    pub fn is_taken(&self, name: &str) -> bool {
        is_built_in(name) || self.find_fixed(name).is_some()
    }

    /// Takes a plugin for the matches that began with it, and gives it back as a game.
    pub fn know(&self, plugin: Arc<Plugin>) -> Arc<dyn GameType> {
        let mut plugins = self.plugins_mut();
        plugins.known.retain(|_, plugin| plugin.strong_count() > 0);
        let key = (plugin.info().name.clone(), plugin.info().version.clone());
        plugins.known.insert(key, Arc::downgrade(&plugin));
        Arc::new(Loaded(plugin))
    }

    /// From now on matches of its name begin with this plugin.
    pub fn offer(&self, plugin: Arc<Plugin>) {
        self.know(Arc::clone(&plugin));
        self.plugins_mut().offered.insert(plugin.info().name.clone(), plugin);
    }

    /// From now on no matches begin with the plugin of this name.
    pub fn withdraw(&self, name: &str) {
        self.plugins_mut().offered.remove(name);
    }

    fn find_fixed(&self, name: &str) -> Option<&Arc<dyn GameType>> {
        self.fixed.iter().find(|game| game.info().name == name)
    }

    fn plugins(&self) -> RwLockReadGuard<'_, Plugins> {
        self.plugins.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn plugins_mut(&self) -> RwLockWriteGuard<'_, Plugins> {
        self.plugins.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn playable(plugin: &Arc<Plugin>) -> Arc<dyn GameType> {
    Arc::new(Loaded(Arc::clone(plugin)))
}

/// A game whose rules are part of the server.
struct BuiltIn {
    info: GameInfo,
    start: fn(&Setup) -> Result<Box<dyn Game>, BadOption>,
}

impl GameType for BuiltIn {
    fn info(&self) -> &GameInfo {
        &self.info
    }

    fn start(&self, setup: &Setup) -> Result<Box<dyn Game>, NoStart> {
        (self.start)(setup).map_err(NoStart::BadOption)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Mode, SEATS_MAX, TICK_HZ_MAX, setup};
    use super::*;

    fn catalog() -> Catalog {
        Catalog::new(None, vec![golf()])
    }

    fn golf() -> RelayGame {
        RelayGame { name: "golf".into(), title: "Golf".into(), description: "Nine holes.".into() }
    }

    #[test]
    fn the_order_is_fixed() {
        let catalog = catalog();
        let names: Vec<_> = catalog.list().into_iter().map(|info| info.name).collect();
        assert_eq!(names, [&BUILT_IN[..], &["golf"]].concat());
        assert!(catalog.find("chess").is_none());
        assert_eq!(catalog.find("golf").unwrap().info().title, "Golf");
    }

    #[test]
    fn what_is_not_offered_is_not_there() {
        let catalog = Catalog::new(Some(&["relay".into(), "tictactoe".into()]), vec![golf()]);
        let names: Vec<_> = catalog.list().into_iter().map(|info| info.name).collect();
        assert_eq!(names, ["tictactoe", "relay", "golf"]);
        assert!(catalog.find("pairs").is_none() && is_built_in("pairs"));
    }

    #[test]
    fn what_is_said_of_games_keeps_its_bounds() {
        for info in catalog().list() {
            assert!((1..=32).contains(&info.name.len()), "{info:?}");
            assert!((1..=64).contains(&info.title.chars().count()), "{info:?}");
            assert!((info.min_players..=info.max_players).contains(&info.default_players));
            assert!(info.min_players >= 1 && info.max_players <= SEATS_MAX, "{info:?}");
            assert_eq!(info.tick_hz.is_some(), info.mode == Mode::Ticks);
            assert!(info.tick_hz.is_none_or(|hz| (1..=TICK_HZ_MAX).contains(&hz)), "{info:?}");
            assert!(!info.description.is_empty() && !info.version.is_empty());
        }
    }

    #[test]
    fn each_game_starts_with_its_defaults_and_refuses_options_it_does_not_know() {
        let catalog = catalog();
        for game in &catalog.fixed {
            let mut setup = setup(game.info(), serde_json::Map::new(), 1).unwrap();
            assert_eq!(setup.players, game.info().default_players);
            assert!(game.start(&setup).is_ok());
            setup.options.insert("cheat".into(), true.into());
            let refused = game.start(&setup).err().unwrap();
            assert!(matches!(refused, NoStart::BadOption(bad) if bad.field == "cheat"));
        }
    }
}
