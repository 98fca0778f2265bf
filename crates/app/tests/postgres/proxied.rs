//! Tieline before the server of these tests.

use std::net::SocketAddr;

use tieline_testkit::{PATIENCE, Tieline, wait_until};

use crate::house::Server;

/// How long a lease on a server lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Session,
    Transaction,
    Statement,
}

/// As whom servers are logged in to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tenancy {
    /// As each client.
    Own,
    /// As `postgres`, whoever the client is: all share the servers.
    Shared,
}

/// A Tieline whose listener `db` leads everybody to `server`, over a pool of `size`.
pub(crate) fn before(server: &Server, mode: Mode, size: usize) -> (Tieline, SocketAddr) {
    before_as(server, mode, size, Tenancy::Own)
}

/// [`before`], with servers logged in to as `tenancy` says.
pub(crate) fn before_as(server: &Server, mode: Mode, size: usize, tenancy: Tenancy) -> (Tieline, SocketAddr) {
    let mode = match mode {
        Mode::Session => "session",
        Mode::Transaction => "transaction",
        Mode::Statement => "statement",
    };
    let user = if tenancy == Tenancy::Shared { "user = \"postgres\"" } else { "" };
    let config = format!(
        r#"
        [server]
        workers = 2

        [listener.db]
        bind = "127.0.0.1:0"
        protocol = "postgres"
        auth = "trust"

        [[listener.db.route]]
        upstream = "server"
        access = "public"

        [upstream.server]
        protocol = "postgres"
        endpoints = ["{}"]
        tls = "off"
        {user}
        pool = {{ mode = "{mode}", size = {size} }}
        "#,
        server.address()
    );
    let tieline = Tieline::start(&config);
    let address = tieline.listener_address("db");
    (tieline, address)
}

/// Waits until so many clients stand in line for a server of `upstream`.
#[track_caller]
pub(crate) fn wait_for_waiting(tieline: &Tieline, upstream: &str, count: usize) {
    let waiting = || tieline.metric(&format!("tieline_pool_waiting{{upstream=\"{upstream}\"}}"));
    assert!(wait_until(PATIENCE, || waiting() == count as f64), "{} wait, and not {count}", waiting());
}
