//! The web client, embedded: so that a player needs an address and nothing else. The documents of the
//! protocol are embedded in the same way.
//!
//! `build.rs` names each file after its content, so browsers may keep all but the page for ever.
//! `client.js` is the example of how to speak the protocol. `app.js` has the pages and chooses one;
//! `match.js` is a match, with `boards.js`, `arena.js` and `faces.js`, `plain.js` for games that it
//! doesn't know, `chat.js` and `playback.js` in it.

use std::io::Read as _;

use flate2::read::GzDecoder;

/// What the page may do: load its own files and speak to its own origin, which covers `ws:` and
/// `wss:` too (CSP Level 3, 6.7.2.8). Nothing inline, no form that leaves, no frame.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// A file of the web client.
pub struct Asset {
    /// Where it is served.
    pub path: &'static str,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its `ETag`: weak, since it is the same for both encodings (RFC 9110 8.8.1).
    pub etag: &'static str,
    /// Compressed: nearly all clients take `gzip`, and the program is smaller.
    pub gzip: &'static [u8],
    /// Whether its path changes with its content: it may be kept for a year; else asked for anew.
    pub immutable: bool,
}

impl Asset {
    /// The file as it is, for clients that don't take `gzip`.
    pub fn identity(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // What build.rs packed can be unpacked.
        let _ = GzDecoder::new(self.gzip).read_to_end(&mut bytes);
        bytes
    }
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// The file at `path`; `/` is the page.
pub fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

#[cfg(test)]
mod tests {
    use super::{ASSETS, find};

    fn text(path: &str) -> String {
        String::from_utf8(find(path).expect(path).identity()).unwrap()
    }

    /// All paths under `/assets/` and imports in `text`, as paths.
    fn references(text: &str) -> Vec<String> {
        let quoted = text.split('"');
        let paths = quoted.filter_map(|one| match one.strip_prefix("./") {
            Some(module) => Some(format!("/assets/{module}")),
            None => one.starts_with("/assets/").then(|| one.to_owned()),
        });
        paths.filter(|path| !path.contains(char::is_whitespace)).collect()
    }

    #[test]
    fn every_reference_leads_to_a_file() {
        let mut count = 0;
        for asset in ASSETS {
            for path in references(&text(asset.path)) {
                let found = find(&path).unwrap_or_else(|| panic!("{} wants {path}", asset.path));
                assert!(found.immutable, "{path}");
                count += 1;
            }
        }
        assert!(count >= ASSETS.len() - 2, "{count} references");
    }

    #[test]
    fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
        let page = text("/");
        for forbidden in ["<style", "style=", "javascript:", "<script>"] {
            assert!(!page.contains(forbidden), "the page has {forbidden:?}");
        }
        assert!(!page.split_whitespace().any(|word| word.starts_with("on") && word.contains('=')));
        for asset in ASSETS.iter().filter(|asset| asset.content_type != "application/json") {
            let text = text(asset.path).replace("http://www.w3.org/2000/svg", "");
            for forbidden in ["http://", "https://", "innerHTML", "eval("] {
                assert!(!text.contains(forbidden), "{} has {forbidden:?}", asset.path);
            }
        }
    }

    #[test]
    fn what_keeps_its_name_is_asked_for_anew() {
        for asset in ASSETS {
            assert_eq!(asset.immutable, asset.path.starts_with("/assets/"), "{}", asset.path);
            assert!(asset.gzip.len() < asset.identity().len(), "{}", asset.path);
        }
        assert!(find("/assets/app.js").is_none());
    }
}
