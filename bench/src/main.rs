//! Tieline beside its peers, measured in the same run; not shipped.
//!
//! `tieline-bench tcp` relays the same traffic through Tieline, HAProxy (`mode tcp`) and nginx (`stream`),
//! one worker each, in turns, and prints Markdown tables with the ratios and the bars they must meet. What
//! is measured is CPU time, memory and system calls, never the wall clock, except where the promise is
//! about waiting. Start with [`scenario`].

#![allow(clippy::print_stdout, clippy::print_stderr)] // a command that talks to people

mod arguments;
mod backend;
mod bulk_load;
mod crowd;
mod figure;
mod machine;
mod product;
mod scenario;
mod table;
mod tools;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Suite};

fn main() -> ExitCode {
    // What a server said before it failed to start is in the message; a backtrace would bury it.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let Suite::Tcp(arguments) = Arguments::parse().suite;
    match run(&arguments) {
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

/// Runs the scenarios asked for; how many of them could not be run. A missed bar is a result, not a failure.
fn run(arguments: &arguments::Tcp) -> anyhow::Result<usize> {
    machine::raise_file_limit()?;
    if arguments.products().contains(&product::Product::Tieline) {
        machine::find_tieline(arguments.no_build)?;
    }
    println!("{}\n", machine::describe(arguments));
    let mut failed = 0;
    for scenario in arguments.scenarios() {
        eprintln!("{}: {}", scenario.name(), scenario.promise());
        // A product that does not start panics with its log; the other scenarios can still be measured.
        match catch_unwind(AssertUnwindSafe(|| scenario.run(arguments))) {
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
