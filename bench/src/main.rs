//! Tieline beside its peers, measured in the same run; not shipped.
//!
//! `tieline-bench tcp` relays the same traffic through Tieline, HAProxy (`mode tcp`) and nginx (`stream`),
//! `tieline-bench http` sends the same requests through Tieline, HAProxy (`mode http`) and nginx
//! (`proxy_pass`), `tieline-bench postgres` the same transactions through Tieline and PgBouncer; one worker
//! each, in turns. `tieline-bench tunnel` leads to far services through Tieline's agent, rathole and ssh.
//! All print Markdown tables with the ratios and the bars they must meet. What is measured is
//! CPU time, memory and system calls, never the wall clock, except where the promise is about waiting. Start
//! with [`scenario`], then [`http`], [`postgres`] and [`tunnel`].

#![allow(clippy::print_stdout, clippy::print_stderr)] // a command that talks to people

mod arguments;
mod backend;
mod bulk_load;
mod config;
mod crowd;
mod figure;
mod http;
mod machine;
mod postgres;
mod product;
mod promise;
mod rounds;
mod scenario;
mod table;
mod tools;
mod tunnel;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Options, Suite};
use promise::Promise;

fn main() -> ExitCode {
    // What a server said before it failed to start is in the message; a backtrace would bury it.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let ran = match Arguments::parse().suite {
        Suite::Tcp(chosen) => run(&chosen.scenarios(), &chosen.options),
        Suite::Http(chosen) => run(&chosen.scenarios(), &chosen.options),
        Suite::Postgres(chosen) => run(&chosen.scenarios(), &chosen.options),
        Suite::Tunnel(chosen) => run(&chosen.scenarios(), &chosen.options),
    };
    match ran {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("{failed} of the scenarios could not be run");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("tieline-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `scenarios`; how many of them could not be run. A missed bar is a result, not a failure.
fn run(scenarios: &[impl Promise], options: &Options) -> anyhow::Result<usize> {
    machine::raise_file_limit()?;
    if options.products().contains(&product::Product::Tieline) {
        machine::find_tieline(options.no_build)?;
    }
    println!("{}\n", machine::describe(options));
    let mut failed = 0;
    for scenario in scenarios {
        eprintln!("{}: {}", scenario.name(), scenario.promise());
        // A product that does not start panics with its log; the other scenarios can still be measured.
        match catch_unwind(AssertUnwindSafe(|| scenario.run(options))) {
            Ok(Ok(tables)) => tables.iter().for_each(|table| println!("{table}")),
            Ok(Err(error)) => {
                eprintln!("{} could not be run: {error:#}", scenario.name());
                failed += 1;
            }
            Err(_) => failed += 1,
        }
    }
    Ok(failed)
}
