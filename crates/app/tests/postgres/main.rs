//! The protocol `postgres` of the real binary, between real clients and real servers.
#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test may")]

mod auth_query;
mod books;
mod cancels;
mod console;
mod differential;
mod drivers;
mod encryption;
mod failover;
mod fair;
mod hoarding;
mod house;
mod leaks;
mod ledger;
mod listen;
mod lives;
mod login;
mod moods;
mod notices;
mod patience;
mod pieces;
mod pooling;
mod positions;
mod proxied;
mod reads;
mod refusals;
mod replicas;
mod replication;
mod script;
mod seats;
mod servers;
mod through_tieline;
mod tokio_postgres;
mod tools;
mod understood;
mod unusual;
