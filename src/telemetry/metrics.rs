//! The kinds of figures, and how Prometheus reads them (text format 0.0.4).
//!
//! A family is a static: its values are there from the start, one for each combination of its
//! labels' words, which are bounded by their type. What is known only by looking ([`Observed`]) is
//! put there right before it is read.

use std::fmt::Write as _;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Buckets of a histogram, the one for all that is larger apart.
const BOUNDS: usize = 15;
/// Bounds of the buckets of times, in microseconds.
const TIME_BOUNDS: [u64; BOUNDS] = [
    100,
    250,
    500,
    1000,
    2500,
    5000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    5_000_000,
    30_000_000,
    300_000_000,
];
/// Bounds of the buckets of sizes.
const SIZE_BOUNDS: [u64; BOUNDS] =
    [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384];
const MICROS_PER_SECOND: f64 = 1e6;

/// What tells the values of a family apart.
pub trait Label {
    /// The names of its labels.
    const NAMES: &'static [&'static str];
    /// How many combinations of words there are.
    const COUNT: usize;
    /// Which of them it is.
    fn index(self) -> usize;
    /// The words of one, in the order of the names.
    fn words(index: usize) -> Vec<&'static str>;
}

/// No label.
impl Label for () {
    const NAMES: &'static [&'static str] = &[];
    const COUNT: usize = 1;

    fn index(self) -> usize {
        0
    }

    fn words(_: usize) -> Vec<&'static str> {
        Vec::new()
    }
}

/// An enum whose variants are the words of a label.
macro_rules! label {
    ($(#[$doc:meta])* $type:ident($name:literal) {
        $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[$variant_doc])* $variant),*
        }

        impl $type {
            const WORDS: &'static [&'static str] = &[$($word),*];
        }

        impl $crate::telemetry::metrics::Label for $type {
            const NAMES: &'static [&'static str] = &[$name];
            const COUNT: usize = Self::WORDS.len();

            fn index(self) -> usize {
                self as usize
            }

            fn words(index: usize) -> Vec<&'static str> {
                vec![Self::WORDS[index]]
            }
        }
    };
}
pub(crate) use label;

/// What Prometheus takes a family for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// How many were at most so large.
    Histogram,
}

impl Kind {
    /// As Prometheus writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A family of figures, whatever its kind.
pub trait Metric: Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// What it means; a sentence.
    fn help(&self) -> &'static str;
    /// What it is.
    fn kind(&self) -> Kind;
    /// The names of its labels.
    fn labels(&self) -> &'static [&'static str];
    /// Writes its values, a line for each.
    fn write_values(&self, text: &mut String);

    /// Writes all of it.
    fn write(&self, text: &mut String) {
        let (name, help, kind) = (self.name(), self.help(), self.kind().as_str());
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.write_values(text);
    }
}

/// What a family is made of.
pub trait Value {
    /// What a family of them is.
    const KIND: Kind;
    /// Writes it; `labels` are those of the family, ready to be written.
    fn write(&self, text: &mut String, name: &str, labels: &str);
}

/// A number that only rises.
#[derive(Debug)]
pub struct Count(AtomicU64);

impl Count {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many it has been.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Value for Count {
    const KIND: Kind = Kind::Counter;

    fn write(&self, text: &mut String, name: &str, labels: &str) {
        let _ = writeln!(text, "{name}{} {}", braced(labels), self.total());
    }
}

/// How many there are now.
pub struct Level {
    name: &'static str,
    help: &'static str,
    now: AtomicU64,
}

impl Level {
    /// None yet.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, now: AtomicU64::new(0) }
    }

    /// One more, until what is given is dropped.
    pub fn hold(&'static self) -> Held {
        self.now.fetch_add(1, Ordering::Relaxed);
        Held(self)
    }

    /// How many there are.
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }
}

/// One of those that a [`Level`] counts.
#[must_use]
pub struct Held(&'static Level);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metric for Level {
    fn name(&self) -> &'static str {
        self.name
    }

    fn help(&self) -> &'static str {
        self.help
    }

    fn kind(&self) -> Kind {
        Kind::Gauge
    }

    fn labels(&self) -> &'static [&'static str] {
        &[]
    }

    fn write_values(&self, text: &mut String) {
        let _ = writeln!(text, "{} {}", self.name, self.now());
    }
}

/// How many were at most so large.
#[derive(Debug)]
pub struct Buckets {
    bounds: &'static [u64; BOUNDS],
    /// In the unit of the bounds, for one of the unit that is shown.
    scale: f64,
    /// One for each bound, and one for what is above all.
    counts: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
}

impl Buckets {
    const fn new(bounds: &'static [u64; BOUNDS], scale: f64) -> Self {
        let counts = [const { AtomicU64::new(0) }; BOUNDS + 1];
        Self { bounds, scale, counts, sum: AtomicU64::new(0) }
    }

    /// Something took so long.
    pub fn took(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Something was so large.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// How often something was observed, and the sum of it.
    #[expect(clippy::cast_precision_loss, reason = "that precise it is up to 2^53")]
    pub fn total(&self) -> (u64, f64) {
        let count = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        (count, self.sum.load(Ordering::Relaxed) as f64 / self.scale)
    }
}

impl Value for Buckets {
    const KIND: Kind = Kind::Histogram;

    #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
    fn write(&self, text: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            below += count.load(Ordering::Relaxed);
            let bound = self.bounds.get(index).map(|bound| *bound as f64 / self.scale);
            let bound = bound.map_or("+Inf".into(), |bound| bound.to_string());
            let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}");
        }
        let sum = self.sum.load(Ordering::Relaxed) as f64 / self.scale;
        let labels = braced(labels);
        let _ = write!(text, "{name}_sum{labels} {sum}\n{name}_count{labels} {below}\n");
    }
}

/// Figures that differ in their labels' words alone.
pub struct Family<L, V, const N: usize> {
    name: &'static str,
    help: &'static str,
    values: [V; N],
    label: PhantomData<fn() -> L>,
}

/// A single counter.
pub type Counter = Family<(), Count, 1>;
/// Counters by a label.
pub type Counters<L, const N: usize> = Family<L, Count, N>;
/// A single histogram.
pub type Histogram = Family<(), Buckets, 1>;
/// Histograms by a label.
pub type Histograms<L, const N: usize> = Family<L, Buckets, N>;

impl<L: Label, V, const N: usize> Family<L, V, N> {
    const fn of_values(name: &'static str, help: &'static str, values: [V; N]) -> Self {
        assert!(N == L::COUNT, "one value for each combination of words");
        Self { name, help, values, label: PhantomData }
    }

    /// The one with these words.
    pub fn of(&self, label: L) -> &V {
        &self.values[label.index()]
    }

    /// All of them.
    pub fn all(&self) -> &[V] {
        &self.values
    }
}

impl<L: Label, const N: usize> Family<L, Count, N> {
    /// Counters that begin with 0.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self::of_values(name, help, [const { Count::new() }; N])
    }
}

impl<L: Label, const N: usize> Family<L, Buckets, N> {
    /// Histograms of times; shown in seconds.
    pub const fn of_times(name: &'static str, help: &'static str) -> Self {
        Self::of_values(name, help, [const { Buckets::new(&TIME_BOUNDS, MICROS_PER_SECOND) }; N])
    }

    /// Histograms of sizes.
    pub const fn of_sizes(name: &'static str, help: &'static str) -> Self {
        Self::of_values(name, help, [const { Buckets::new(&SIZE_BOUNDS, 1.0) }; N])
    }
}

impl<V> std::ops::Deref for Family<(), V, 1> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.values[0]
    }
}

impl<L: Label, V: Value + Sync, const N: usize> Metric for Family<L, V, N> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn help(&self) -> &'static str {
        self.help
    }

    fn kind(&self) -> Kind {
        V::KIND
    }

    fn labels(&self) -> &'static [&'static str] {
        L::NAMES
    }

    fn write_values(&self, text: &mut String) {
        for (index, value) in self.values.iter().enumerate() {
            value.write(text, self.name, &label_text(L::NAMES, &L::words(index)));
        }
    }
}

/// What is known only by looking.
pub struct Observed {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    /// The labels, ready to be written, and the values of the last look.
    values: Mutex<Vec<(String, f64)>>,
}

impl Observed {
    /// A family that has no values yet.
    pub const fn new(
        kind: Kind,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, help, kind, labels, values: Mutex::new(Vec::new()) }
    }

    /// The only value.
    pub fn set(&self, value: f64) {
        self.set_all([(&[] as &[&str], value)]);
    }

    /// The only value, a number of things.
    #[expect(clippy::cast_precision_loss, reason = "that precise it is up to 2^53")]
    pub fn set_count(&self, count: usize) {
        self.set(count as f64);
    }

    /// All values together, as they were at the last look.
    pub fn sum(&self) -> f64 {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.iter().map(|(_, value)| value).sum()
    }

    /// All values, each with the words of its labels.
    pub fn set_all<'a>(&self, values: impl IntoIterator<Item = (&'a [&'a str], f64)>) {
        let values = values.into_iter();
        let values = values.map(|(words, value)| (label_text(self.labels, words), value)).collect();
        *self.values.lock().unwrap_or_else(PoisonError::into_inner) = values;
    }
}

impl Metric for Observed {
    fn name(&self) -> &'static str {
        self.name
    }

    fn help(&self) -> &'static str {
        self.help
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn labels(&self) -> &'static [&'static str] {
        self.labels
    }

    fn write_values(&self, text: &mut String) {
        for (labels, value) in &*self.values.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(text, "{}{} {value}", self.name, braced(labels));
        }
    }
}

fn label_text(names: &[&str], words: &[&str]) -> String {
    let one = |(name, word): (&&str, &&str)| {
        let word = word.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        format!("{name}=\"{word}\"")
    };
    names.iter().zip(words).map(one).collect::<Vec<_>>().join(",")
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    label! {
        Answer("answer") { Yes = "yes", No = "no" }
    }

    fn text(metric: &dyn Metric) -> String {
        let mut text = String::new();
        metric.write(&mut text);
        text
    }

    #[test]
    fn counters_are_there_from_the_start() {
        static ANSWERS: Counters<Answer, 2> = Counters::new("answers_total", "Answers.");
        ANSWERS.of(Answer::No).add(3);
        assert_eq!(
            text(&ANSWERS),
            "# HELP answers_total Answers.\n# TYPE answers_total counter\n\
             answers_total{answer=\"yes\"} 0\nanswers_total{answer=\"no\"} 3\n"
        );
        assert_eq!(ANSWERS.of(Answer::Yes).total(), 0);
    }

    #[test]
    fn a_bucket_counts_all_that_is_not_larger() {
        static TIMES: Histogram = Histogram::of_times("wait_seconds", "Waits.");
        for micros in [1, 100, 101, 2_500_000, 60_000_000] {
            TIMES.took(Duration::from_micros(micros));
        }
        let text = text(&TIMES);
        for line in [
            "wait_seconds_bucket{le=\"0.0001\"} 2",
            "wait_seconds_bucket{le=\"0.00025\"} 3",
            "wait_seconds_bucket{le=\"5\"} 4",
            "wait_seconds_bucket{le=\"+Inf\"} 5",
            "wait_seconds_sum 62.500202",
            "wait_seconds_count 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert_eq!(TIMES.total().0, 5);
    }

    #[test]
    fn words_are_escaped() {
        static GAMES: Observed = Observed::new(Kind::Gauge, "matches", &["game"], "Matches.");
        GAMES.set_all([(&["a \"b\"\\\n"] as &[&str], 2.5)]);
        assert!(text(&GAMES).ends_with("matches{game=\"a \\\"b\\\"\\\\\\n\"} 2.5\n"));
    }
}
