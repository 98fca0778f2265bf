//! The real binary at both ends of a tunnel: a server, agents, and a cable between them that is cut.
#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test may")]

#[path = "../support/mod.rs"]
mod support;

mod agents;
mod approvals;
mod carriers;
mod certificates;
mod copies;
mod cuts;
mod doctor;
mod drains;
mod enrolling;
mod flows;
mod groups;
mod losses;
mod moves;
mod offers;
mod oracle;
mod people;
mod programs;
mod restarts;
mod site;
mod two_links;
