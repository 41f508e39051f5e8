//! The games that this server has: those built in, and relay games under names of their own.

use std::sync::Arc;

use serde::Deserialize;

use super::{BadOption, Game, GameInfo, GameType, Setup, arena, pairs, relay, tictactoe};

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

/// All games, in the order that lobbies show.
pub struct Catalog(Vec<Arc<dyn GameType>>);

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
        Self(types.map(|game| Arc::new(game) as Arc<dyn GameType>).collect())
    }

    /// The game with this name.
    pub fn find(&self, name: &str) -> Option<&Arc<dyn GameType>> {
        self.0.iter().find(|game| game.info().name == name)
    }

    /// What there is to know of each.
    pub fn list(&self) -> impl Iterator<Item = &GameInfo> {
        self.0.iter().map(|game| game.info())
    }
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

    fn start(&self, setup: &Setup) -> Result<Box<dyn Game>, BadOption> {
        (self.start)(setup)
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
        let names: Vec<_> = catalog.list().map(|info| info.name.as_str()).collect();
        assert_eq!(names, [&BUILT_IN[..], &["golf"]].concat());
        assert!(catalog.find("chess").is_none());
        assert_eq!(catalog.find("golf").unwrap().info().title, "Golf");
    }

    #[test]
    fn what_is_not_offered_is_not_there() {
        let catalog = Catalog::new(Some(&["relay".into(), "tictactoe".into()]), vec![golf()]);
        let names: Vec<_> = catalog.list().map(|info| info.name.as_str()).collect();
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
        for game in &catalog.0 {
            let mut setup = setup(game.info(), serde_json::Map::new(), 1).unwrap();
            assert_eq!(setup.players, game.info().default_players);
            assert!(game.start(&setup).is_ok());
            setup.options.insert("cheat".into(), true.into());
            assert_eq!(game.start(&setup).err().unwrap().field, "cheat");
        }
    }
}
