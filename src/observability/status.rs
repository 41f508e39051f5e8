//! A page for a look: is it well, and how was it in the last minutes? It needs no script.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::admin::Admin;
use super::metrics::look;
use crate::telemetry::figures as f;
use crate::telemetry::metrics::Count;

/// How often figures are taken down; the page refreshes itself as often.
const INTERVAL: Duration = Duration::from_secs(5);
/// Figures that are kept: of ten minutes.
const POINTS_MAX: usize = 120;
/// The plots, in pixels of their own.
const PLOT: (f64, f64) = (240.0, 48.0);
const MIB: f64 = 1024.0 * 1024.0;

/// The figures of the last minutes.
#[derive(Default)]
pub(super) struct History(Mutex<VecDeque<Point>>);

/// The figures of a moment.
#[derive(Clone, Copy, Default)]
struct Point {
    /// Since the start.
    seconds: f64,
    players: f64,
    matches: f64,
    messages: f64,
    commits: (u64, f64),
    memory_bytes: f64,
    cpu_seconds: f64,
}

/// Takes figures down until nobody holds `admin` any more.
pub(super) async fn keep_history(admin: Weak<Admin>) {
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(admin) = admin.upgrade() else { return };
        look(&admin);
        admin.history.push(Point::now(&admin));
    }
}

impl History {
    fn push(&self, point: Point) {
        let mut points = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if points.len() == POINTS_MAX {
            points.pop_front();
        }
        points.push_back(point);
    }

    /// What is kept, and the present instead of the latest if that was just now: what happened in a
    /// moment tells little of what happens in a second.
    fn until(&self, now: Point) -> Vec<Point> {
        let points = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let long_ago = now.seconds - INTERVAL.as_secs_f64() / 2.0;
        let latest = points.back().is_some_and(|point| point.seconds > long_ago);
        let kept = points.len() - usize::from(latest && points.len() > 1);
        points.iter().take(kept).copied().chain([now]).collect()
    }
}

impl Point {
    fn now(admin: &Admin) -> Self {
        Self {
            seconds: admin.uptime().as_secs_f64(),
            players: f::PLAYERS.sum(),
            matches: f::MATCHES.sum(),
            messages: messages(),
            commits: f::COMMIT_TIME.total(),
            memory_bytes: f::RESIDENT.sum(),
            cpu_seconds: f::CPU_SECONDS.sum(),
        }
    }
}

/// Messages so far, in and out.
#[expect(clippy::cast_precision_loss, reason = "a plot is not that precise")]
fn messages() -> f64 {
    let received: u64 = f::MESSAGES_RECEIVED.all().iter().map(Count::total).sum();
    (f::MESSAGES_SENT.total() + received) as f64
}

/// The page as it is now.
pub(super) async fn page(admin: &Admin) -> String {
    look(admin);
    let state = match admin.readiness().await {
        Ok(()) => ("well", "ready".to_owned()),
        Err(refusal) => ("ill", format!("not ready: {}", refusal.detail())),
    };
    let points = admin.history.until(Point::now(admin));
    let mut page = format!(
        include_str!("status.html"),
        refresh = INTERVAL.as_secs(),
        class = state.0,
        state = escaped(&state.1),
        version = env!("CARGO_PKG_VERSION"),
        uptime = spoken(admin.uptime()),
        nodes = f::NODES.sum(),
    );
    for (name, unit, values) in plots(&points) {
        card(&mut page, name, unit, &values);
    }
    page + "</main>\n"
}

/// What is drawn: its name, its unit, and a value for each moment.
fn plots(points: &[Point]) -> [(&'static str, &'static str, Vec<f64>); 6] {
    let each = |value: fn(&Point) -> f64| points.iter().map(value).collect();
    let change = |value: fn(&Point, &Point) -> f64| {
        points.windows(2).map(|pair| value(&pair[0], &pair[1])).collect()
    };
    let rate = |value: fn(&Point) -> f64| {
        let rate = |pair: &[Point]| {
            let seconds = (pair[1].seconds - pair[0].seconds).max(f64::EPSILON);
            (value(&pair[1]) - value(&pair[0])).max(0.0) / seconds
        };
        points.windows(2).map(rate).collect()
    };
    [
        ("Players", "", each(|point| point.players)),
        ("Matches", "in memory", each(|point| point.matches)),
        ("Messages", "/s", rate(|point| point.messages)),
        ("Commit", "ms", change(|a, b| mean_millis(a.commits, b.commits))),
        ("Memory", "MiB", each(|point| point.memory_bytes / MIB)),
        ("CPU", "cores", rate(|point| point.cpu_seconds)),
    ]
}

/// What a commit took in the mean.
#[expect(clippy::cast_precision_loss, reason = "a plot is not that precise")]
fn mean_millis((count, seconds): (u64, f64), (later_count, later_seconds): (u64, f64)) -> f64 {
    let commits = later_count.saturating_sub(count).max(1);
    (later_seconds - seconds) * 1e3 / commits as f64
}

#[expect(clippy::cast_precision_loss, reason = "a plot is not that precise")]
fn card(page: &mut String, name: &str, unit: &str, values: &[f64]) {
    let (width, height) = PLOT;
    let largest = values.iter().copied().fold(0.0, f64::max);
    let step = width / POINTS_MAX as f64;
    let scale = if largest > 0.0 { height / largest } else { 0.0 };
    let mut line = String::new();
    let mut x = width - step * values.len().saturating_sub(1) as f64;
    for value in values {
        let _ = write!(line, "{x:.1},{:.1} ", height - value * scale);
        x += step;
    }
    let now = values.last().copied().unwrap_or_default();
    let _ = writeln!(
        page,
        "<section><h2>{name}</h2><p><b>{}</b> {unit}</p>\
         <svg viewBox=\"0 -2 {width} {}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{name} in the last ten minutes\"><polyline points=\"{line}\"/></svg>\
         <small>at most {} {unit}</small></section>",
        rounded(now),
        height + 4.0,
        rounded(largest),
    );
}

fn rounded(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn spoken(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    let (days, hours, minutes) = (minutes / (24 * 60), minutes / 60 % 24, minutes % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min"),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spoken() {
        let spoken = |seconds| spoken(Duration::from_secs(seconds));
        assert_eq!(spoken(59), "0 min");
        assert_eq!(spoken(3_700), "1 h 1 min");
        assert_eq!(spoken(90_061), "1 d 1 h");
    }

    #[test]
    fn history_has_an_end() {
        let history = History::default();
        for second in 0..200 {
            history.push(Point { seconds: second.into(), ..Point::default() });
        }
        let lasts = |seconds| {
            let points = history.until(Point { seconds, ..Point::default() });
            let gap = points[points.len() - 1].seconds - points[points.len() - 2].seconds;
            (points.len(), gap.round())
        };
        assert_eq!(lasts(204.0), (POINTS_MAX + 1, 5.0));
        assert_eq!(lasts(200.0), (POINTS_MAX, 2.0), "the latest is too near");
    }

    #[test]
    fn a_plot_ends_at_its_right_edge_with_the_latest() {
        let mut page = String::new();
        card(&mut page, "Players", "", &[0.0, 4.0, 2.0]);
        assert!(page.contains("points=\"236.0,48.0 238.0,0.0 240.0,24.0 \""), "{page}");
        assert!(page.contains("<b>2</b>") && page.contains("at most 4"), "{page}");
    }
}
