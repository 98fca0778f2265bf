//! What guards cost a request that they let pass, and what a refusal costs beside a request that is served.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::Context;
use tempfile::TempDir;
use tieline_testkit::{Tieline, free_port, loopback, usage};

use super::load::ask;
use super::message::{content_length, head_length, status};
use super::origin::{Origin, Page, SMALL};
use crate::arguments::Options;
use crate::config::TIELINE_SERVER;
use crate::figure::median;
use crate::machine::{self, Placement};
use crate::scenario::managed;
use crate::table::{Table, Verdict};
use crate::tools;

/// Requests of one measurement of CPU time.
const REQUESTS: usize = 20_000;
/// Run lengths under callgrind, whose difference counts.
const COUNTED: (usize, usize) = (1_000, 6_000);
/// One connection: a request after the other, as a refused client comes again.
const AT_ONCE: usize = 1;
/// What a guard may add to a request that passes.
const GUARD_MAX: f64 = 200.0;
/// A refusal may cost such a part of a request that is served.
const REFUSAL_MAX: f64 = 0.1;

/// The document of the pages asked for here.
const DOCUMENT: &str = "openapi: 3.1.0\ninfo: { title: pages, version: '1' }\npaths:\n  /128:\n    get:\n\
    \x20     parameters: [{ name: limit, in: query, schema: { type: integer, maximum: 100 } }]\n\
    \x20     responses: { '200': { description: a page } }\n";

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    managed::only_with_tieline(options, measure)
}

/// A route: what stands before it, and what it answers.
struct Guarded {
    name: &'static str,
    /// More lines of the route.
    lines: String,
    status: u16,
    bar: Option<Bar>,
}

#[derive(Clone, Copy)]
enum Bar {
    /// Instructions more than without a guard.
    More(f64),
    /// A part of the CPU time of a request that is served.
    Part(f64),
}

impl Bar {
    fn told(self) -> String {
        match self {
            Bar::More(most) => format!("≤ {most:.0} more"),
            Bar::Part(most) => format!("≤ {:.0} % of the CPU", most * 100.0),
        }
    }
}

impl Guarded {
    /// The documents let the requests pass, and do not.
    fn all(document: &str, other: &str) -> Vec<Guarded> {
        let ample = "rate = \"1000000000/s\"";
        let guarded = |name, lines: String, status, bar: Option<Bar>| Guarded { name, lines, status, bar };
        let passes = |name, lines, bar| guarded(name, lines, 200, bar);
        let guard = Some(Bar::More(GUARD_MAX));
        let refusal = Some(Bar::Part(REFUSAL_MAX));
        vec![
            passes("no guard", String::new(), None),
            passes("a rate by client", format!("rate = [{{ {ample} }}]"), guard),
            passes("a rate that answers tell of", format!("rate = [{{ {ample}, tell = true }}]"), None),
            passes(
                "a rate by a field",
                format!("rate = [{{ {ample}, per = \"header:user-agent\" }}]"),
                guard,
            ),
            passes("requests at once", "concurrent = 1000".to_owned(), guard),
            passes("an interface: path, method, query", format!("api = \"{document}\""), None),
            guarded("refused: 429", "rate = [{ rate = \"1/h\", burst = 1 }]".to_owned(), 429, refusal),
            guarded("refused: 405", format!("api = \"{other}\""), 405, refusal),
        ]
    }

    fn config(&self, bind: SocketAddr, origin: &Origin) -> String {
        format!(
            "{TIELINE_SERVER}\n[listener.bench]\nbind = \"{bind}\"\nprotocol = \"http\"\n\n\
             [[listener.bench.route]]\nupstream = \"bench\"\naccess = \"public\"\n{}\n\n\
             [upstream.bench]\nendpoints = [\"{}\"]\n",
            self.lines,
            origin.address()
        )
    }

    fn start(&self, tool: &[&str], origin: &Origin) -> anyhow::Result<(Tieline, SocketAddr)> {
        let bind = loopback(free_port());
        let tieline = Tieline::start_under(&machine::tieline_binary()?, tool, &self.config(bind, origin));
        if self.status != 200 {
            // The one request that passes.
            let mut first = TcpStream::connect(bind)?;
            let page = Page::of(SMALL);
            first.write_all(&page.request)?;
            answer(&mut first, &mut Vec::new())?;
        }
        Ok((tieline, bind))
    }

    fn ask(&self, bind: SocketAddr, count: usize) -> anyhow::Result<()> {
        let page = Page::of(SMALL);
        if self.status == 200 {
            return Ok(ask(bind, &page, count, AT_ONCE)?);
        }
        let mut client = TcpStream::connect(bind)?;
        let mut came = Vec::new();
        for _ in 0..count {
            client.write_all(&page.request)?;
            let status = answer(&mut client, &mut came)?;
            anyhow::ensure!(status == self.status, "answered {status} instead of {}", self.status);
        }
        Ok(())
    }

    fn instructions(&self, origin: &Origin) -> anyhow::Result<f64> {
        tools::instructions_between(COUNTED, |tool, length| {
            let (mut tieline, bind) = self.start(tool, origin)?;
            self.ask(bind, length)?;
            tieline.stop();
            Ok(())
        })
    }

    fn cpu_us(&self, origin: &Origin, placement: &Placement, count: usize) -> anyhow::Result<f64> {
        let (tieline, bind) = self.start(&[], origin)?;
        placement.place(tieline.pid())?;
        self.ask(bind, count / 10)?;
        let before = usage::cpu_time(tieline.pid());
        self.ask(bind, count)?;
        Ok((usage::cpu_time(tieline.pid()) - before).as_secs_f64() * 1e6 / count as f64)
    }
}

/// Reads one answer; its status.
fn answer(client: &mut TcpStream, came: &mut Vec<u8>) -> io::Result<u16> {
    came.clear();
    let mut place = [0; 4096];
    loop {
        let length = client.read(&mut place)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        came.extend_from_slice(&place[..length]);
        let Some(head) = head_length(came) else { continue };
        let body = content_length(&came[..head]).unwrap_or(0);
        if came.len() >= head + body {
            return status(&came[..head]).ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
    }
}

fn measure(options: &Options) -> anyhow::Result<Vec<Table>> {
    let placement = Placement::new(options)?;
    let (origin, documents) = (Origin::start(&[SMALL])?, TempDir::new()?);
    let [document, other] = ["pages", "other"].map(|name| documents.path().join(name));
    std::fs::write(&document, DOCUMENT)?;
    std::fs::write(&other, DOCUMENT.replace("get:", "put:"))?;
    let all = Guarded::all(&document.display().to_string(), &other.display().to_string());
    let count = options.amount(REQUESTS);
    let mut cpu: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
    for _ in 0..options.repeat() {
        for (guarded, rounds) in all.iter().zip(&mut cpu) {
            let us = guarded.cpu_us(&origin, &placement, count);
            rounds.push(us.with_context(|| guarded.name)?);
        }
    }
    let title = format!("Guards ({count} small requests a round, one after the other)");
    let columns = ["What", "CPU µs", "of served", "instructions", "more", "Bar", "Verdict"];
    let mut table = Table::new(title, &columns);
    let (served_us, mut served) = (median(&cpu[0]), None);
    for (guarded, rounds) in all.iter().zip(&cpu) {
        let us = median(rounds);
        let counted = options.callgrind.then(|| guarded.instructions(&origin)).transpose()?;
        served = served.or(counted);
        let more = counted.zip(served).map(|(counted, served)| counted - served);
        let verdict = match guarded.bar {
            Some(Bar::Part(most)) => Verdict::at_most(us / served_us, most),
            Some(Bar::More(most)) => more.map_or(Verdict::None, |more| Verdict::at_most(more, most)),
            None => Verdict::None,
        };
        let shown = |count: Option<f64>| count.map_or_else(|| "–".to_owned(), |count| format!("{count:.0}"));
        table.row([
            guarded.name.to_owned(),
            format!("{us:.1}"),
            format!("{:.0} %", us / served_us * 100.0),
            shown(counted),
            shown(more),
            guarded.bar.map(Bar::told).unwrap_or_default(),
            verdict.to_string(),
        ]);
    }
    Ok(vec![table])
}
