//! A strict reader of OpenMetrics text, and what it finds in ours.

use std::collections::{BTreeMap, BTreeSet};

use tieline_base::Reason;

use crate::testing::{self, Scene};

/// A series' name and labels.
type Key = (String, BTreeMap<String, String>);

#[derive(Default)]
struct Exposed {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<Key, f64>,
}

impl Exposed {
    /// Reads all of `text`, or panics at the first thing that is not as the format wants it.
    fn read(text: &str) -> Exposed {
        let body = text.strip_suffix("# EOF\n").expect("it ends with EOF");
        let (mut exposed, mut family) = (Exposed::default(), String::new());
        let mut closed = BTreeSet::new();
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                closed.insert(std::mem::take(&mut family));
                assert!(help.split_once(' ').is_some_and(|(_, words)| !words.is_empty()), "{line}");
                family = help.split(' ').next().unwrap().to_owned();
                assert!(!closed.contains(&family), "{family} is split in two");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, family, "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(exposed.kinds.insert(name.into(), kind.into()).is_none(), "{line} twice");
            } else {
                exposed.sample(line, &family);
            }
        }
        exposed
    }

    fn sample(&mut self, line: &str, family: &str) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').map_or((series, ""), |(name, rest)| {
            assert!(rest.len() > 1, "empty braces in {line}");
            (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("{line}")))
        });
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{line}");
        let suffixes: &[&str] = match self.kinds[family].as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            _ => &["_bucket", "_sum", "_count"],
        };
        assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{line} in {family}");
        let value: f64 = value.parse().unwrap();
        let key = (name.to_owned(), read_labels(labels));
        assert!(self.samples.insert(key, value).is_none(), "{line} twice");
    }

    fn of(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let key = (name.to_owned(), labels);
        *self.samples.get(&key).unwrap_or_else(|| panic!("no {key:?}"))
    }

    /// The sum of all series called `name` whose `label` is `value`.
    fn sum(&self, name: &str, label: &str, value: &str) -> f64 {
        let wanted = |key: &Key| key.0 == name && key.1.get(label).is_some_and(|found| found == value);
        self.samples.iter().filter(|(key, _)| wanted(key)).map(|(_, value)| value).sum()
    }
}

/// `name="value",…`, with `\\`, `\"` and `\n` in values.
fn read_labels(text: &str) -> BTreeMap<String, String> {
    let (mut labels, mut rest) = (BTreeMap::new(), text);
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap();
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().expect("a closing quote") {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    escaped @ ('\\' | '"') => escaped,
                    other => panic!("\\{other}"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none());
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels
}

fn exposed(scene: &Scene) -> Exposed {
    Exposed::read(&scene.plane.exposition(&testing::permit()).text().unwrap())
}

#[test]
fn closed_is_what_was_opened_and_lives_no_more_and_gauges_are_the_rows() {
    let scene = Scene::new();
    // One ends for each reason there is, and some live on.
    let ended = Reason::ALL.len();
    let rows: Vec<_> = (0..ended + 14).map(|_| testing::row(scene.registry(), "web", "10.0.0.1:1")).collect();
    for (row, reason) in rows.iter().zip(Reason::ALL) {
        row.moved(true, 10);
        scene.registry().leave(row, *reason, None, ());
    }
    rows[ended].moved(true, 5);
    rows[ended].moved(false, 7);
    let ended = ended as f64;
    let exposed = exposed(&scene);
    let opened = exposed.of("tieline_connections_opened_total", &[("listener", "web")]);
    let closed = exposed.sum("tieline_connections_closed_total", "listener", "web");
    let live = exposed.sum("tieline_connections", "listener", "web");
    assert_eq!((opened, closed, live), (ended + 14.0, ended, 14.0));
    for reason in Reason::ALL {
        let labels = [("listener", "web"), ("reason", reason.as_str())];
        assert_eq!(exposed.of("tieline_connections_closed_total", &labels), 1.0, "{reason}");
    }
    assert_eq!(
        exposed.of("tieline_bytes_total", &[("direction", "up"), ("listener", "web")]),
        ended * 10.0 + 5.0
    );
    assert_eq!(exposed.of("tieline_bytes_total", &[("direction", "down"), ("listener", "web")]), 7.0);
}

#[test]
fn bytes_never_fall_while_rows_end() {
    let scene = Scene::new();
    let mut highest = 0.0;
    for round in 0..20 {
        let row = testing::row(scene.registry(), "web", "10.0.0.1:1");
        row.moved(true, 100);
        for _ in 0..2 {
            let now = exposed(&scene).of("tieline_bytes_total", &[("direction", "up"), ("listener", "web")]);
            assert!(now >= highest, "{now} after {highest} in round {round}");
            highest = now;
            scene.registry().leave(&row, Reason::Idle, None, ());
        }
    }
    assert_eq!(highest, 2_000.0);
}

#[test]
fn histograms_rise_and_end_with_their_count() {
    let scene = Scene::new();
    let upstream = scene.registry().upstream("shop");
    for us in [1, 70, 900, 40_000, 3_000_000, u64::MAX / 2_000] {
        upstream.acquired(tieline_base::WorkerId(0), std::time::Duration::from_micros(us));
    }
    let exposed = exposed(&scene);
    let name = "tieline_acquire_duration_seconds";
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for ((series, labels), count) in &exposed.samples {
        if *series == format!("{name}_bucket") {
            buckets.push((labels["le"].parse().unwrap(), *count));
        }
    }
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    assert!(buckets.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1), "{buckets:?}");
    let shop = [("upstream", "shop")];
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, exposed.of(&format!("{name}_count"), &shop))));
    assert_eq!(exposed.of(&format!("{name}_count"), &shop), 6.0);
    assert!(exposed.of(&format!("{name}_sum"), &shop) > 3.04);
}

#[test]
fn every_family_of_the_contract_is_there_and_hostile_names_stay_labels() {
    let scene = Scene::new();
    let hostile = "a\"b\\c\nd} 1\n# EOF";
    scene.registry().listener(hostile, "tcp");
    let exposed = exposed(&scene);
    assert_eq!(exposed.of("tieline_connections_opened_total", &[("listener", hostile)]), 0.0);
    let endpoint = [("upstream", "shop"), ("endpoint", "10.0.0.9:80")];
    assert_eq!(exposed.of("tieline_endpoint_up", &endpoint), 1.0);
    assert_eq!(exposed.of("tieline_build_info", &[("version", "1.2.3")]), 1.0);
    for (name, labels) in [
        ("tieline_endpoint_in_flight", &endpoint[..]),
        ("tieline_endpoint_connects_total", &endpoint[..]),
        ("tieline_endpoint_connect_failures_total", &endpoint[..]),
        ("tieline_pool_waiting", &endpoint[..1]),
        ("tieline_config_reloads_total", &[("result", "success")]),
        ("tieline_config_reloads_total", &[("result", "failure")]),
        ("tieline_access_log_dropped_total", &[]),
    ] {
        assert_eq!(exposed.of(name, labels), 0.0, "{name}");
    }
    // A young process may not have used a tick of the clock yet.
    assert!(exposed.of("process_cpu_seconds_total", &[]) >= 0.0);
    for name in [
        "tieline_config_generation",
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        assert!(exposed.of(name, &[]) > 0.0, "{name}");
    }
}
