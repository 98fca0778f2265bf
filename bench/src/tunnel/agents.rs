//! Many idle agents: what they cost their server, and how they come back when all are cut at once.

use std::time::Duration;

use anyhow::ensure;
use tieline_base::Clock;
use tieline_testkit::{Agent, PATIENCE, Tieline, free_port, loopback, usage, wait_until};

use super::road::Peer;
use crate::arguments::Options;
use crate::backend::Echo;
use crate::figure::percentile;
use crate::machine;
use crate::scenario::idle::settled_own_memory_kib;
use crate::scenario::ls::probe_during;
use crate::table::{JUDGED, Table, Verdict};

const AGENTS: usize = 2000;
/// Agents that are started at a time.
const STARTERS: usize = 4;
const QUIET: Duration = Duration::from_secs(30);
const KIB_MAX: f64 = 100.0;
const CPU_MAX: f64 = 0.10;
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// The first ones allocate once and for all what is not the price of each.
const FIRST: usize = 20;

pub(super) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    if !options.peers().contains(&Peer::Tieline) {
        return Ok(Vec::new());
    }
    let (count, echo, binary) = (options.amount(AGENTS), Echo::start(1)?, machine::tieline_binary()?);
    let service = loopback(free_port());
    let limits = "limits = { connections = 20000, per_ip = 20000, accept_rate = \"10000/s\" }";
    let server = Tieline::start_from(
        &binary,
        &format!(
            "[server]\naccess_log = \"off\"\nlog = \"warn\"\n\
             [listener.gate]\nbind = \"127.0.0.1:0\"\nprotocol = \"tunnel\"\n{limits}\n\
             [listener.door]\nbind = \"127.0.0.1:0\"\nprotocol = \"tunnel\"\n\
             [listener.web]\nbind = \"{service}\"\nprotocol = \"tcp\"\n\
             [[listener.web.route]]\nupstream = \"web\"\naccess = \"public\"\n\
             [upstream.web]\nendpoints = [\"agent:other/echo\"]\n"
        ),
    );
    let offer = format!("[offer.echo]\nto = \"{}\"\n", echo.addresses()[0]);
    let other = Agent::join_under(&binary, &[], &server, "other", server.listener_address("door"), &offer);
    let links = || links(&server);
    let mut agents = start(&server, 0..FIRST, &offer);
    ensure!(wait_until(PATIENCE, || links() == FIRST), "the first agents do not link up");
    let before = settled_own_memory_kib(server.pid());
    agents.extend(start(&server, FIRST..FIRST + count, &offer));
    let all = FIRST + count;
    ensure!(wait_until(PATIENCE * 4, || links() == all), "{} of {all} agents link up", links());
    let memory = (settled_own_memory_kib(server.pid()) as f64 - before as f64) / count as f64;
    // Threads that have ended count too: certificates are made by some that do not stay.
    let cpu = || {
        let (user, system) = usage::user_and_system_time(server.pid());
        user + system
    };
    let (begin, spent) = (Clock::now(), cpu());
    std::thread::sleep(QUIET); // the length of the measurement
    let share = (cpu() - spent).as_secs_f64() / Clock::now().since(begin).as_secs_f64();

    let calm = probe_during(service, || std::thread::sleep(Duration::from_secs(4)))?.1;
    let (back, stormy) = probe_during(service, || storm(&server, all))?;
    let back = back?;
    let mut table =
        Table::new(format!("{count} idle agents, each a process of its own, on one server"), &JUDGED);
    let judged = Verdict::at_most(memory, KIB_MAX);
    table.judge("the server's memory for each", format!("{memory:.1} KiB"), "≤ 100 KiB", judged);
    let shown = format!("{:.1} % of a core", share * 100.0);
    table.judge("the server's CPU, all at rest", shown, "< 10 %", Verdict::at_most(share, CPU_MAX));
    let shown = back.map_or_else(|| "not in 60 s".to_owned(), |back| format!("{:.1} s", back.as_secs_f64()));
    table.judge("all killed at once: 99 % back", shown, "≤ 60 s", Verdict::holds(back.is_some()));
    let (calm, stormy) = (percentile(&calm, 99.0), percentile(&stormy, 99.0));
    let shown = format!("alive, p99 {calm:.1} → {stormy:.1} ms");
    table.judge("an established stream of another meanwhile", shown, "alive", Verdict::Pass);
    drop((agents, other));
    Ok(vec![table])
}

fn links(server: &Tieline) -> usize {
    server
        .cli(["ls", "listener=gate", "stage=relay"])
        .stdout
        .lines()
        .filter(|line| line.contains("gate"))
        .count()
}

fn start(server: &Tieline, numbers: std::ops::Range<usize>, offer: &str) -> Vec<Agent> {
    let gate = server.listener_address("gate");
    let (first, count) = (numbers.start, numbers.len());
    let begin = |starter: usize| {
        let own = (0..count).filter(move |number| number % STARTERS == starter);
        let binary = machine::tieline_binary().expect("it was found before");
        own.map(|number| {
            let name = format!("a{}", first + number);
            Agent::join_under(&binary, &[], server, &name, gate, offer)
        })
        .collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let starters: Vec<_> = (0..STARTERS).map(|starter| scope.spawn(move || begin(starter))).collect();
        starters.into_iter().flat_map(|starter| starter.join().expect("an agent starts")).collect()
    })
}

/// Kills all links at once; how long it took until 99 % were back, if they were in time.
fn storm(server: &Tieline, all: usize) -> anyhow::Result<Option<Duration>> {
    let begin = Clock::now();
    let killed = server.cli(["kill", "listener=gate"]);
    ensure!(killed.success(), "tieline kill: {}", killed.stderr);
    // Killed rows leave at once: what is counted below are new ones.
    let back = wait_until(BACK_WITHIN, || links(server) * 100 >= all * 99);
    Ok(back.then(|| Clock::now().since(begin)))
}
