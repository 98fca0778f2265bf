//! Nuisances: what they cost in memory, and what other clients feel of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use tieline_base::Clock;

use super::fickle::Fickle;
use super::nuisance::{LARGE, Nuisance, SLOW};
use super::origin::{Origin, Page, SMALL};
use super::pace::{Pace, Paced};
use super::scene::Scene;
use super::secure::Trust;
use crate::arguments::Options;
use crate::figure::percentile;
use crate::machine::Placement;
use crate::product::Product;
use crate::table::{Table, Verdict};

/// Each nuisance lasts so long, in milliseconds.
const LASTS_MS: usize = 60_000;
/// The baseline of other clients, in milliseconds, right before each nuisance.
const BASELINE_MS: usize = 10_000;
const PACE: Pace = Pace { per_second: 500.0, connections: 8, connections_max: 64 };
const MEMORY_MAX_MIB: f64 = 64.0;
const P99_MAX: f64 = 2.0;

/// Who is beset: the peer has no bar, but it says what the machine makes of such a nuisance.
const BESET: [Product; 2] = [Product::Tieline, Product::Nginx];

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let placement = Placement::new(options)?;
    let (trust, origin) = (Trust::new()?, Origin::start(&[SMALL, LARGE])?);
    let patient = Fickle::thinking(Duration::ZERO)?;
    let lasts = Duration::from_millis(options.amount(LASTS_MS) as u64);
    let title = format!(
        "Nuisances of {} s each ({SLOW} slow clients; floods over 16 connections); others ask {} times \
         a second",
        lasts.as_secs(),
        PACE.per_second
    );
    let columns = [
        "Nuisance",
        "Product",
        "times",
        "MiB more",
        "p99 of others, ms",
        "÷ before",
        "failed",
        "Bar",
        "Verdict",
    ];
    let mut table = Table::new(title, &columns);
    for nuisance in options.nuisances() {
        for product in BESET.into_iter().filter(|&product| options.asks_for(product)) {
            // A process of its own for each: what one leaves behind is not the next one's.
            let scene = Scene::start(product, nuisance.speaks_http2(), &trust, &origin, &patient)?;
            placement.place(scene.pid())?;
            let felt = Felt::of(nuisance, &scene, &trust, options, lasts)
                .with_context(|| format!("{}, {}", product.name(), nuisance.name()))?;
            felt.add_to(&mut table, nuisance, product);
        }
    }
    Ok(vec![table])
}

/// What came of a nuisance.
struct Felt {
    times: u64,
    more_mib: f64,
    p99_ms_before: f64,
    p99_ms: f64,
    failed: usize,
}

impl Felt {
    fn of(
        nuisance: Nuisance,
        scene: &Scene,
        trust: &Trust,
        options: &Options,
        lasts: Duration,
    ) -> anyhow::Result<Felt> {
        let before = others(scene, Duration::from_millis(options.amount(BASELINE_MS) as u64))?;
        let (memory, over) = (scene.memory_mib(), AtomicBool::new(false));
        let (times, most, during) = std::thread::scope(|scope| {
            let flooding = scope.spawn(|| nuisance.go_on(scene.plain(), scene.secure(), trust, &over));
            let watching = scope.spawn(|| most_memory(scene, &over));
            let during = others(scene, lasts);
            over.store(true, Ordering::Relaxed);
            let times = flooding.join().expect("a nuisance does not panic");
            (times, watching.join().expect("watching does not panic"), during)
        });
        let during = during?;
        Ok(Felt {
            times,
            more_mib: most - memory,
            p99_ms_before: percentile(&before.took_ms, 99.0),
            p99_ms: percentile(&during.took_ms, 99.0),
            failed: before.failed + during.failed,
        })
    }

    fn add_to(&self, table: &mut Table, nuisance: Nuisance, product: Product) {
        let ratio = self.p99_ms / self.p99_ms_before;
        let kept = self.more_mib < MEMORY_MAX_MIB && ratio < P99_MAX && self.failed == 0;
        let ours = product == Product::Tieline;
        table.row([
            nuisance.name().to_owned(),
            product.name().to_owned(),
            self.times.to_string(),
            format!("{:.1}", self.more_mib),
            format!("{:.2} → {:.2}", self.p99_ms_before, self.p99_ms),
            format!("{ratio:.2}"),
            self.failed.to_string(),
            if ours { "< 64 MiB, < 2 ×, 0" } else { "" }.to_owned(),
            if ours { Verdict::holds(kept) } else { Verdict::None }.to_string(),
        ]);
    }
}

/// Has the others ask for so long.
fn others(scene: &Scene, lasts: Duration) -> anyhow::Result<Paced> {
    Ok(PACE.ask(scene.others(), &Page::of(SMALL), |since| since >= lasts)?)
}

/// The most memory that it has until it is over, in MiB.
fn most_memory(scene: &Scene, over: &AtomicBool) -> f64 {
    let (mut most, began) = (0.0_f64, Clock::now());
    while !over.load(Ordering::Relaxed) || Clock::now().since(began) < Duration::from_secs(1) {
        most = most.max(scene.memory_mib());
        std::thread::sleep(Duration::from_millis(250));
    }
    most
}
