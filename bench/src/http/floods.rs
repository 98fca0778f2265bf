//! Nuisances: what they cost in memory, and what other clients feel of them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use tieline_base::Clock;
use tieline_testkit::{Tieline, free_port, loopback, usage};

use super::fickle::Fickle;
use super::nuisance::{LARGE, Nuisance, SLOW};
use super::origin::{Origin, Page, SMALL};
use super::pace::{Pace, Paced};
use super::secure::Trust;
use crate::arguments::Options;
use crate::config::TIELINE_SERVER;
use crate::figure::percentile;
use crate::machine::{self, Placement};
use crate::scenario::managed;
use crate::table::{Table, Verdict};

/// Each nuisance lasts so long, in milliseconds.
const LASTS_MS: usize = 60_000;
/// The baseline of other clients, in milliseconds, right before each nuisance.
const BASELINE_MS: usize = 10_000;
const PACE: Pace = Pace { per_second: 500.0, connections: 8, connections_max: 64 };
const MEMORY_MAX_MIB: f64 = 64.0;
const P99_MAX: f64 = 2.0;

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    managed::only_with_tieline(options, measure)
}

/// A Tieline with a listener for the others and two for the nuisances, one of them under TLS.
struct Scene {
    tieline: Tieline,
    others: SocketAddr,
    plain: SocketAddr,
    secure: SocketAddr,
}

impl Scene {
    fn start(trust: &Trust, origin: &Origin, patient: &Fickle) -> anyhow::Result<Scene> {
        let [others, plain, secure] = [(); 3].map(|()| loopback(free_port()));
        let pair = trust.pair();
        let tls = format!(
            "tls = {{ certificate = \"{}\", key = \"{}\" }}",
            pair.certificate.display(),
            pair.key.display()
        );
        let listener = |name: &str, bind: SocketAddr, more: &str| {
            format!(
                "\n[listener.{name}]\nbind = \"{bind}\"\nprotocol = \"http\"\n{more}\n\
                 [[listener.{name}.route]]\nupstream = \"bench\"\naccess = \"public\"\n\n\
                 [[listener.{name}.route]]\npath = \"/patient\"\nupstream = \"patient\"\n\
                 access = \"public\"\n"
            )
        };
        let config = [
            TIELINE_SERVER.to_owned(),
            listener("others", others, ""),
            listener("plain", plain, ""),
            listener("secure", secure, &tls),
            format!("\n[upstream.bench]\nendpoints = [\"{}\"]\n", origin.address()),
            format!("\n[upstream.patient]\nendpoints = [\"{}\"]\n", patient.address()),
        ];
        let tieline = Tieline::start_from(&machine::tieline_binary()?, &config.concat());
        Ok(Scene { tieline, others, plain, secure })
    }

    fn others(&self, lasts: Duration) -> anyhow::Result<Paced> {
        Ok(PACE.ask(self.others, &Page::of(SMALL), |since| since >= lasts)?)
    }

    fn memory_mib(&self) -> f64 {
        usage::own_memory_kib(self.tieline.pid()) as f64 / 1024.0
    }
}

fn measure(options: &Options) -> anyhow::Result<Vec<Table>> {
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
    let columns =
        ["Nuisance", "times", "MiB more", "p99 of others, ms", "÷ before", "failed", "Bar", "Verdict"];
    let mut table = Table::new(title, &columns);
    for nuisance in Nuisance::ALL {
        // A process of its own for each: what one leaves behind is not the next one's.
        let scene = Scene::start(&trust, &origin, &patient)?;
        placement.place(scene.tieline.pid())?;
        add(&mut table, nuisance, &scene, &trust, options, lasts)
            .with_context(|| nuisance.name().to_owned())?;
    }
    Ok(vec![table])
}

fn add(
    table: &mut Table,
    nuisance: Nuisance,
    scene: &Scene,
    trust: &Trust,
    options: &Options,
    lasts: Duration,
) -> anyhow::Result<()> {
    let before = scene.others(Duration::from_millis(options.amount(BASELINE_MS) as u64))?;
    let (memory, over) = (scene.memory_mib(), AtomicBool::new(false));
    let (times, most, during) = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| nuisance.go_on(scene.plain, scene.secure, trust, &over));
        let watching = scope.spawn(|| most_memory(scene, &over));
        let during = scene.others(lasts);
        over.store(true, Ordering::Relaxed);
        let times = flooding.join().expect("a nuisance does not panic");
        (times, watching.join().expect("watching does not panic"), during)
    });
    let during = during?;
    let (more, calm, busy) =
        (most - memory, percentile(&before.took_ms, 99.0), percentile(&during.took_ms, 99.0));
    let failed = before.failed + during.failed;
    let kept = more < MEMORY_MAX_MIB && busy < P99_MAX * calm && failed == 0;
    table.row([
        nuisance.name().to_owned(),
        times.to_string(),
        format!("{more:.1}"),
        format!("{calm:.2} → {busy:.2}"),
        format!("{:.2}", busy / calm),
        failed.to_string(),
        "< 64 MiB, < 2 ×, 0".to_owned(),
        Verdict::holds(kept).to_string(),
    ]);
    Ok(())
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
