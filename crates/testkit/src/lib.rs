//! Real servers and the real binary, for tests and benches; not shipped.
//!
//! Every server here is a child process in its own temporary directory on a free loopback port. It is ready
//! when `start` returns, it dies with the value that holds it, and if the test process is killed the kernel
//! ends it. A missing program is a failure that says so, never a skipped test. The whole interface is
//! synchronous, so that every test can use it; [`wait_until`] replaces sleeping.
//!
//! Refuses to know what any test wants to prove. Start with [`Tieline`], then [`Process`].

mod agent;
mod apache;
mod authority;
mod cable;
mod conversation;
mod dnsmasq;
mod grpc;
mod haproxy;
mod http;
mod http_proxy;
mod mariadb;
mod nginx;
pub mod pg;
mod pgbouncer;
mod ports;
mod postgres;
mod process;
mod program;
mod redis;
mod sshd;
mod tcp;
mod tieline;
mod tls_client;
mod udp;
mod udp_cable;
mod unix;
pub mod usage;
mod wait;

pub use agent::Agent;
pub use apache::Apache;
pub use authority::{Authority, Pair, Wanted};
pub use cable::Cable;
pub use conversation::{HttpConversation, HttpMessage};
pub use dnsmasq::Dnsmasq;
pub use grpc::GrpcServer;
pub use haproxy::Haproxy;
pub use http::{HttpAnswer, http_over_tcp, http_over_unix};
pub use http_proxy::HttpProxy;
pub use mariadb::MariaDb;
pub use nginx::{HttpServer, Nginx};
pub use pgbouncer::PgBouncer;
pub use ports::{free_port, loopback};
pub use postgres::{Cluster, Postgres};
pub use process::Process;
pub use program::{Finished, finish, finish_within, program};
pub use redis::Redis;
pub use sshd::Sshd;
pub use tcp::{BlackHole, Refusing, TcpServer};
pub use tieline::Tieline;
pub use tls_client::TlsClient;
pub use udp::{UdpClient, UdpEcho};
pub use udp_cable::UdpCable;
pub use unix::UnixEcho;
pub use wait::{PATIENCE, wait_for, wait_until};
