//! Tieline and PgBouncer before a PostgreSQL, running, configured alike: one worker, transaction mode.

use std::net::SocketAddr;
use std::time::Duration;

use tieline_testkit::{Pair, PgBouncer, Postgres, Tieline, free_port, loopback, usage};

use crate::config::TIELINE_SERVER;
use crate::machine;
use crate::product::Product;

/// How a pooler reaches its server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Tcp,
    Unix,
}

/// What a pooler is configured for.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) way: Way,
    /// Servers at most.
    pub(crate) size: usize,
    /// The certificate to show to clients; plain without.
    pub(crate) certificate: Option<&'a Pair>,
    /// The verifier of the user `postgres`, who then proves a password by SCRAM; trusted without.
    pub(crate) verifier: Option<&'a str>,
    /// A server holds a client's whole session instead of a transaction.
    pub(crate) session: bool,
    /// Who may come beside `postgres`.
    pub(crate) users: &'a [String],
}

impl Setup<'_> {
    /// Over TCP to the server, plain and trusting towards clients.
    pub(crate) fn of(size: usize) -> Setup<'static> {
        Setup { way: Way::Tcp, size, certificate: None, verifier: None, session: false, users: &[] }
    }

    fn mode(&self) -> &'static str {
        if self.session { "session" } else { "transaction" }
    }
}

/// A running pooler.
pub(crate) struct Pooler {
    server: Server,
    address: SocketAddr,
}

enum Server {
    Tieline(Tieline),
    PgBouncer(PgBouncer),
}

impl Pooler {
    /// Starts `product` before `postgres`.
    pub(crate) fn start(product: Product, postgres: &Postgres, setup: &Setup<'_>) -> anyhow::Result<Pooler> {
        Pooler::start_under(&[], product, postgres, setup)
    }

    /// [`Pooler::start`] under a tool, as `["valgrind", "--tool=callgrind"]`.
    pub(crate) fn start_under(
        tool: &[&str],
        product: Product,
        postgres: &Postgres,
        setup: &Setup<'_>,
    ) -> anyhow::Result<Pooler> {
        if product == Product::PgBouncer {
            let server = pgbouncer(tool, postgres, setup);
            let address = server.address();
            return Ok(Pooler { server: Server::PgBouncer(server), address });
        }
        let address = loopback(free_port());
        let endpoint = match setup.way {
            Way::Tcp => postgres.address().to_string(),
            Way::Unix => {
                let port = postgres.address().port();
                format!("unix:{}/.s.PGSQL.{port}", postgres.socket_directory().display())
            }
        };
        let config = tieline_config(address, &[endpoint], setup);
        let tieline = Tieline::start_under(&machine::tieline_binary()?, tool, &config);
        Ok(Pooler { server: Server::Tieline(tieline), address })
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        match &self.server {
            Server::Tieline(tieline) => tieline.pid(),
            Server::PgBouncer(bouncer) => bouncer.pid(),
        }
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu_time(&self) -> Duration {
        usage::cpu_time(self.pid())
    }

    /// Ends it; tools that watch it write their reports now.
    pub(crate) fn stop(mut self) {
        match &mut self.server {
            Server::Tieline(tieline) => tieline.stop(),
            Server::PgBouncer(bouncer) => bouncer.process().stop(),
        };
    }
}

/// The config of a Tieline at `address` that leads everybody to `endpoints`.
pub(crate) fn tieline_config(address: SocketAddr, endpoints: &[String], setup: &Setup<'_>) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
    let auth = if setup.verifier.is_some() { "scram" } else { "trust" };
    let tls = setup.certificate.map(|pair| {
        let (certificate, key) = (pair.certificate.display(), pair.key.display());
        format!("tls = {{ certificate = \"{certificate}\", key = \"{key}\" }}\n")
    });
    let user = setup.verifier.map(|verifier| format!("[user.postgres]\nverifier = \"{verifier}\"\n"));
    format!(
        "{TIELINE_SERVER}\n[listener.bench]\nbind = \"{address}\"\nprotocol = \"postgres\"\n\
         auth = \"{auth}\"\n{}limits = {{ connections = 100000, per_ip = 100000 }}\n\n\
         [[listener.bench.route]]\nupstream = \"bench\"\naccess = \"public\"\n\n\
         [upstream.bench]\nprotocol = \"postgres\"\nendpoints = [{}]\ntls = \"off\"\nuser = \"postgres\"\n\
         pool = {{ mode = \"{}\", size = {}, queue = 100000 }}\n\n{}",
        tls.unwrap_or_default(),
        endpoints.join(", "),
        setup.mode(),
        setup.size,
        user.unwrap_or_default()
    )
}

fn pgbouncer(tool: &[&str], postgres: &Postgres, setup: &Setup<'_>) -> PgBouncer {
    let port = postgres.address().port();
    let host = match setup.way {
        Way::Tcp => "127.0.0.1".to_owned(),
        Way::Unix => postgres.socket_directory().display().to_string(),
    };
    let database = format!("* = host={host} port={port} user=postgres");
    let size = setup.size.to_string();
    let mut settings = vec![
        ("pool_mode", setup.mode()),
        ("default_pool_size", size.as_str()),
        ("max_client_conn", "15000"),
        ("log_connections", "0"),
        ("log_disconnections", "0"),
        ("ignore_startup_parameters", "extra_float_digits"),
        ("listen_backlog", "4096"),
    ];
    let files =
        setup.certificate.map(|pair| [&pair.certificate, &pair.key].map(|file| file.display().to_string()));
    if let Some([certificate, key]) = &files {
        settings.push(("client_tls_sslmode", "require"));
        settings.push(("client_tls_cert_file", certificate));
        settings.push(("client_tls_key_file", key));
    }
    if setup.verifier.is_some() {
        settings.push(("auth_type", "scram-sha-256"));
    }
    let mut users = vec![format!("\"postgres\" \"{}\"", setup.verifier.unwrap_or_default())];
    users.extend(setup.users.iter().map(|user| format!("\"{user}\" \"\"")));
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    PgBouncer::start_under(tool, &[&database], &settings, &users)
}
