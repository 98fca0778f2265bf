//! The binary `tieline`: arguments, signals, and the assembly of all floors below.
//!
//! Start with `args.rs` for the command line, `assembly.rs` for what is plugged in where, and `run.rs` for
//! the life of the server.

mod access;
mod agent;
mod apis;
mod args;
mod assembly;
mod clusters;
mod connect;
mod databases;
mod demo;
mod desk;
mod doctor;
mod guards;
mod house;
mod import;
mod logging;
mod offline;
mod passwords;
mod proxy;
mod quic;
mod run;
mod session_keys;
mod site;
mod token;
mod trust;
mod upstreams;
mod user;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Verb};

// Built without huge pages, which would round what idle connections cost up to 2 MiB steps (at 10,000 of them
// a fifth more), and as version 2, which gives pages back to the kernel a hundred times sooner than version
// 3.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tieline_base::Clock::start();
    let args = Args::parse();
    let done = match args.verb {
        Verb::Demo(demo) => demo::run(&demo),
        Verb::Run(run) => run::run(&run),
        Verb::Check(check) => Ok(offline::check(&check)),
        Verb::Explain { key } => Ok(offline::explain(key.as_deref())),
        Verb::Schema => Ok(offline::schema()),
        Verb::User(verb) => user::run(verb),
        Verb::Agent(verb) => agent::run(verb),
        Verb::Connect(args) => connect::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Token(verb) => token::run(verb),
        Verb::Import(verb) => import::run(verb),
        Verb::Steer(verb) => verbs::run(verb),
    };
    done.unwrap_or_else(|error| {
        logging::say(&format!("tieline: {error:#}"));
        ExitCode::FAILURE
    })
}
