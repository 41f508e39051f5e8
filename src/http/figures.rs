//! What is counted of requests, by the address that they were for.

use super::router::{Endpoint, Found, ROUTES};
use crate::telemetry::metrics::{Counters, Histograms, Label, Metric};

/// What requests can be for: every method of every address, the page's files, and what is nothing.
const ROUTES_COUNT: usize = endpoints() + OTHERS.len();
/// Method and address of what is no endpoint.
const OTHERS: [[&str; 2]; 2] = [["GET", "page"], ["other", "none"]];
/// Classes of status codes.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Requests that were answered.
pub(super) static REQUESTS: Counters<Answered, { ROUTES_COUNT * CLASSES.len() }> = Counters::new(
    "gameserver_http_requests_total",
    "Requests that were answered, by method, address and class of status; 1xx are sockets.",
);
/// How long they took.
pub(super) static TIMES: Histograms<Route, ROUTES_COUNT> = Histograms::of_times(
    "gameserver_http_request_duration_seconds",
    "How long it took to answer, from the end of a request's head to the start of the answer.",
);

/// All figures of this room.
pub static FIGURES: &[&dyn Metric] = &[&REQUESTS, &TIMES];

/// What a request was for.
#[derive(Clone, Copy)]
pub(super) struct Route(usize);

/// What a request was for, and its status.
pub(super) struct Answered(pub(super) Route, pub(super) hyper::StatusCode);

const fn endpoints() -> usize {
    let (mut count, mut place) = (0, 0);
    while place < ROUTES.len() {
        count += ROUTES[place].1.len();
        place += 1;
    }
    count
}

impl Route {
    pub(super) fn of(found: &Found) -> Self {
        let is = |wanted: Endpoint| {
            let all = ROUTES.iter().flat_map(|(_, methods)| methods.iter());
            all.map(|(_, endpoint)| *endpoint).position(|endpoint| endpoint == wanted)
        };
        Self(match found {
            Found::Endpoint(endpoint, _) => is(*endpoint).unwrap_or(ROUTES_COUNT - 1),
            Found::Asset(_) => ROUTES_COUNT - 2,
            Found::OtherMethods(_) | Found::Nothing => ROUTES_COUNT - 1,
        })
    }
}

impl Label for Route {
    const NAMES: &'static [&'static str] = &["method", "route"];
    const COUNT: usize = ROUTES_COUNT;

    fn index(self) -> usize {
        self.0
    }

    fn words(index: usize) -> Vec<&'static str> {
        let of =
            |(path, methods): &'static (&'static str, &'static [(hyper::Method, Endpoint)])| {
                methods.iter().map(move |(method, _)| [method.as_str(), *path])
            };
        let word = ROUTES.iter().flat_map(of).chain(OTHERS).nth(index);
        word.unwrap_or(OTHERS[1]).to_vec()
    }
}

impl Label for Answered {
    const NAMES: &'static [&'static str] = &["method", "route", "status"];
    const COUNT: usize = ROUTES_COUNT * CLASSES.len();

    fn index(self) -> usize {
        let class = usize::from(self.1.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.0.index() * CLASSES.len() + class
    }

    fn words(index: usize) -> Vec<&'static str> {
        let mut words = Route::words(index / CLASSES.len());
        words.push(CLASSES[index % CLASSES.len()]);
        words
    }
}
