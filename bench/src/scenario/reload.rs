//! Reloads: what they do not concern is not touched, what they forbid is ended in time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use tieline_base::Clock;
use tieline_testkit::{Tieline, free_port, loopback};

use super::managed::{self, GRACE_S, Site};
use crate::arguments::Options;
use crate::backend::Echo;
use crate::crowd::Crowd;
use crate::figure::{median, milliseconds, percentile};
use crate::table::{JUDGED, Table, Verdict};

const LIVE: usize = 5_000;
const OTHERS: usize = 1_000;
const RELOADS: usize = 100;
/// A hundredth of the live connections says something at a time, in turn.
const SHARE: usize = 100;
/// Ending 5,000 sockets and seeing it takes a moment after the grace.
const TO_END: Duration = Duration::from_millis(500);

pub(crate) fn run(arguments: &Options) -> anyhow::Result<Vec<Table>> {
    let echo = Echo::start(2)?;
    let mut sites = [
        Site::new("live", &echo.addresses()[..1]),
        Site::new("other", &echo.addresses()[1..]),
        Site::new("changing", &[]),
    ];
    sites[2].endpoints = vec![loopback(free_port())];
    let tieline = managed::start(&sites)?;
    let mut live = Crowd::gather(sites[0].bind, arguments.amount(LIVE))?;
    let mut others = Crowd::gather(sites[1].bind, arguments.amount(OTHERS))?;
    let mut table =
        Table::new(format!("Reloads with {} live connections", live.size() + others.size()), &JUDGED);

    let reloads = arguments.amount(RELOADS);
    let (took_ms, wrong_during) = reload_while_echoing(&tieline, &mut sites, &mut live, reloads)?;
    let wrong = wrong_during + live.wrong_echoes(0, 1) + others.wrong_echoes(0, 1);
    let (ended, reset) = (live.ended() + others.ended(), live.reset() + others.reset());
    let what = format!("{reloads} reloads that change another route: dropped, reset, wrong echoes");
    let clean = Verdict::holds(ended == 0 && wrong == 0);
    table.judge(&what, format!("{}, {reset}, {wrong}", ended - reset), "0, 0, 0", clean);
    let took = format!("{:.0} ms, {:.0} ms", median(&took_ms), percentile(&took_ms, 100.0));
    table.judge("a reload, command line included: median, longest", took, "", Verdict::None);

    remove_route(&tieline, &sites, &mut live, &mut others, &mut table)?;
    Ok(vec![table])
}

/// Reloads with another endpoint for `changing` each time, while the live connections go on echoing. How
/// long each reload took in milliseconds, and how many echoes were wrong.
fn reload_while_echoing(
    tieline: &Tieline,
    sites: &mut [Site; 3],
    live: &mut Crowd,
    reloads: usize,
) -> anyhow::Result<(Vec<f64>, usize)> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let echoing = scope.spawn(|| {
            let turns = (0..SHARE).cycle().take_while(|_| !done.load(Ordering::Relaxed));
            turns.map(|turn| live.wrong_echoes(turn, SHARE)).sum::<usize>()
        });
        let took: anyhow::Result<Vec<f64>> = (0..reloads).map(|_| reload_once(tieline, sites)).collect();
        done.store(true, Ordering::Relaxed);
        let wrong = echoing.join().expect("echoing does not panic");
        Ok((took?, wrong))
    })
}

fn reload_once(tieline: &Tieline, sites: &mut [Site; 3]) -> anyhow::Result<f64> {
    sites[2].endpoints = vec![loopback(free_port())];
    let begin = Clock::now();
    let said = tieline.try_reload(&managed::config(sites));
    ensure!(said.success(), "the reload was refused: {}", said.stderr);
    Ok(milliseconds(Clock::now().since(begin)))
}

/// One reload without the route of `live`.
fn remove_route(
    tieline: &Tieline,
    sites: &[Site; 3],
    live: &mut Crowd,
    others: &mut Crowd,
    table: &mut Table,
) -> anyhow::Result<()> {
    let grace = Duration::from_secs(GRACE_S);
    let metrics = tieline.metrics();
    let begin = Clock::now();
    let said = tieline.try_reload(&managed::config(&sites[1..]));
    ensure!(said.success(), "the reload that removes a route was refused: {}", said.stderr);
    live.wait_all_ended(grace * 5);
    let took = Clock::now().since(begin);
    let all = live.ended() == live.size();
    let ended = format!("{} of {} in {:.2} s", live.ended(), live.size(), took.as_secs_f64());
    let what = format!("one reload that removes their route (grace {GRACE_S} s): ended");
    let bar = format!("all, ≤ {:.1} s", (grace + TO_END).as_secs_f64());
    table.judge(&what, ended, &bar, Verdict::holds(all && took <= grace + TO_END));
    let reasons = managed::reasons_since(&metrics, &tieline.metrics());
    let one_reason = reasons.len() == 1 && reasons[0].1 == live.size() as u64;
    table.judge("their reason", managed::in_words(&reasons), "one for all", Verdict::holds(one_reason));
    let (gone, wrong) = (others.ended(), others.wrong_echoes(0, 1));
    let untouched = Verdict::holds(gone == 0 && wrong == 0);
    let what = format!("the {} others meanwhile: ended, wrong echoes", others.size());
    table.judge(&what, format!("{gone}, {wrong}"), "0, 0", untouched);
    Ok(())
}
