//! The protocol `http` of the real binary, between real clients and real servers.
#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test may")]

#[path = "../support/mod.rs"]
mod support;

mod api;
mod attacks;
mod bodies;
mod caps;
mod curl;
mod endpoints;
mod ends;
mod fields;
mod forwarders;
mod frames;
mod grpc;
mod hostile;
mod http2;
mod http2_client;
mod http2_guards;
mod http2_hostile;
mod http2_lives;
mod identity;
mod leaks;
mod limits;
mod load;
mod logs;
mod messages;
mod mirrors;
mod origin;
mod python;
mod rates;
mod rests;
mod retries;
mod rewrites;
mod routing;
mod secured;
mod sessions;
mod shares;
mod site;
mod streams;
mod tls;
mod upgrades;
mod upstream_h2;
mod upstream_servers;
mod websockets;
