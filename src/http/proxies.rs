//! Where a request comes from, by the word of proxies that are trusted.
//!
//! A proxy appends the address that it got a request from; what stands before that was said by
//! somebody else. So the list is read from its end, for as long as who said it is trusted.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{FORWARDED, HeaderMap, HeaderName};
use ipnet::IpNet;

/// What most proxies append to.
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Networks whose word is taken.
pub(super) struct Proxies(pub(super) Vec<IpNet>);

impl Proxies {
    /// The client's own address. `by_node`: another node has passed the request on.
    pub(super) fn client(&self, peer: IpAddr, by_node: bool, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !by_node && !self.trusts(peer) {
            return peer;
        }
        let forwarded_for = list(headers, X_FORWARDED_FOR).map(address);
        let forwarded = list(headers, FORWARDED).map(|element| address(for_of(element)?));
        let by_older = self.first_stranger(peer, forwarded_for);
        let by_newer = self.first_stranger(peer, forwarded);
        match (by_older, by_newer) {
            (Some(one), Some(other)) if one == other => one,
            // One of them is the client's own invention, and nothing tells which.
            (Some(_), Some(_)) | (None, None) => peer,
            (Some(one), None) | (None, Some(one)) => one,
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The last address that no trusted proxy has; `None` if there is no list.
    fn first_stranger(
        &self,
        peer: IpAddr,
        from_the_end: impl Iterator<Item = Option<IpAddr>>,
    ) -> Option<IpAddr> {
        let mut last = None;
        for address in from_the_end {
            // What can't be read hides what is before it.
            let Some(address) = address else { return last.or(Some(peer)) };
            last = Some(address);
            if !self.trusts(address) {
                break;
            }
        }
        last
    }
}

/// A header's elements from the last to the first, over all its lines.
fn list(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines: Vec<&str> =
        headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default()).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(',').map(str::trim))
}

/// The `for` of an element of `Forwarded` (RFC 7239).
fn for_of(element: &str) -> Option<&str> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    values.next().map(|(_, value)| value.trim().trim_matches('"'))
}

/// An address with or without a port and brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    bare.parse().or_else(|_| with_port()).ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, lines: &[(&'static str, &'static str)]) -> String {
        let proxies = Proxies(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        proxies.client(peer.parse().unwrap(), false, &headers).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let spoofed = [("x-forwarded-for", "1.1.1.1")];
        assert_eq!(client("203.0.113.9", &spoofed), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &spoofed), "1.1.1.1");
        assert_eq!(client("::ffff:10.0.0.1", &spoofed), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_list_is_read_from_its_end_as_far_as_it_is_trusted() {
        let chain = [
            ("x-forwarded-for", "6.6.6.6, 198.51.100.7, 10.1.1.1"),
            ("x-forwarded-for", "10.2.2.2"),
        ];
        assert_eq!(client("10.0.0.1", &chain), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "10.3.3.3, 10.2.2.2")]), "10.3.3.3");
        assert_eq!(
            client("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, nonsense, 10.2.2.2")]),
            "10.2.2.2"
        );
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "nonsense")]), "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_as_its_standard_says() {
        for (value, expected) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            ("For=\"[2001:db8::17]:4711\"", "2001:db8::17"),
            ("for=1.1.1.1, proto=https;for=192.0.2.43:80", "192.0.2.43"),
            ("for=192.0.2.1, for=unknown", "10.0.0.1"),
            ("for=192.0.2.1, for=_hidden, for=10.4.4.4", "10.4.4.4"),
        ] {
            assert_eq!(client("10.0.0.1", &[("forwarded", value)]), expected, "{value}");
        }
    }

    #[test]
    fn two_lists_that_disagree_are_worth_nothing() {
        let both = [("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "2.2.2.2")];
        assert_eq!(client("10.0.0.1", &both), "10.0.0.1");
        let agreed = [("forwarded", "for=2.2.2.2"), ("x-forwarded-for", "2.2.2.2")];
        assert_eq!(client("10.0.0.1", &agreed), "2.2.2.2");
    }
}
