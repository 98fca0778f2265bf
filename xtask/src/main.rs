//! Repository tasks: `cargo xtask tidy | deny | generate | bench NAME`.
//!
//! Owns the house rules that a machine can keep. Start with [`tidy`]: one file a rule, each with the sample
//! that breaks it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks to its terminal")]

mod bench;
mod deny;
mod generated;
mod licence;
mod metadata;
mod problem;
mod repository;
mod source;
mod tidy;

use std::process::ExitCode;

use problem::Problem;

const USAGE: &str = "\
cargo xtask tidy              the house rules: floors, lengths, words, links, generated files
cargo xtask deny              the dependencies: bans, versions, licences, number
cargo xtask generate          writes the references in docs/, and the line numbers of links to code
cargo xtask bench NAME ...    runs a bench, in release mode";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let done = match arguments.next().as_deref() {
        Some("tidy") => tidy::problems().map(report),
        Some("deny") => deny::problems().map(report),
        Some("generate") => generated::write().map(|()| ExitCode::SUCCESS),
        Some("bench") => bench::run(arguments),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

/// Prints what is wrong, in the order of the files.
fn report(mut problems: Vec<Problem>) -> ExitCode {
    problems.sort();
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => ExitCode::SUCCESS,
        count => {
            eprintln!("{count} to mend");
            ExitCode::FAILURE
        }
    }
}
