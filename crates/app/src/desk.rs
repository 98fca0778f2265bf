//! What consoles of PostgreSQL listeners ask of the house.

use std::sync::{Arc, OnceLock};

use tieline_config::{self as config, Live};
use tieline_conn::Server;
use tieline_control::Plane;
use tieline_policy::AdminPermit;
use tieline_postgres::{House, Reloading, Setting};
use tokio::sync::watch;

/// Where consoles ask. It is there before the house is, which opens it.
#[derive(Default)]
pub(crate) struct Desk(OnceLock<Open>);

struct Open {
    server: Arc<Server>,
    plane: Plane,
    config: watch::Receiver<Arc<Live>>,
}

impl Desk {
    /// From now on it answers.
    pub(crate) fn open(&self, server: Arc<Server>, plane: Plane, config: watch::Receiver<Arc<Live>>) {
        let opened = self.0.set(Open { server, plane, config });
        debug_assert!(opened.is_ok(), "a house is opened once");
    }
}

impl House for Desk {
    fn server(&self) -> Option<Arc<Server>> {
        self.0.get().map(|open| open.server.clone())
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn settings(&self, listener: &str) -> Vec<Setting> {
        let live = self.0.get().map(|open| open.config.borrow().clone());
        let listener = live.as_ref().and_then(|live| live.listener(listener));
        listener.map(settings).unwrap_or_default()
    }

    fn reload(&self, permit: AdminPermit) -> Reloading {
        let plane = self.0.get().map(|open| open.plane.clone());
        Box::pin(async move {
            let Some(plane) = plane else { return Err(vec!["the server is not ready yet".into()]) };
            plane.reload(&permit).await.map(drop)
        })
    }
}

/// The settings of a listener that PgBouncer has too, by its names and in its units.
fn settings(listener: &config::Listener) -> Vec<Setting> {
    let setting = |key, value: String, default: Option<&str>| Setting {
        key,
        value,
        default: default.map(str::to_owned),
    };
    let seconds = |time: std::time::Duration| time.as_secs_f64().to_string();
    let limit = |most: Option<u32>| most.map_or("0".into(), |most| most.to_string());
    let bind: Vec<String> = listener
        .bind
        .iter()
        .map(|bind| match &bind.address {
            config::BindAddress::Socket(socket) => socket.to_string(),
            config::BindAddress::Unix(path) => format!("unix:{}", path.display()),
        })
        .collect();
    let port = listener.bind.iter().find_map(|bind| match &bind.address {
        config::BindAddress::Socket(socket) => Some(socket.port().to_string()),
        config::BindAddress::Unix(_) => None,
    });
    let lookup = listener.auth_query.as_ref();
    let console = listener.console.clone().unwrap_or_default();
    vec![
        setting("admin_users", console.admins.join(","), Some("")),
        setting("auth_query", lookup.map(|it| it.query.clone()).unwrap_or_default(), None),
        setting(
            "auth_type",
            match listener.auth {
                config::Auth::Scram => "scram-sha-256",
                config::Auth::Md5 => "md5",
                config::Auth::Certificate => "cert",
                config::Auth::Trust => "trust",
            }
            .into(),
            Some("scram-sha-256"),
        ),
        setting("client_idle_timeout", seconds(listener.timeouts.idle), Some("86400")),
        setting("client_login_timeout", seconds(listener.timeouts.handshake), Some("10")),
        setting("listen_addr", bind.join(","), None),
        setting("listen_port", port.unwrap_or_default(), None),
        setting("max_client_conn", limit(listener.limits.connections), Some("0")),
        setting("max_db_client_connections", limit(listener.limits.per_database), Some("0")),
        setting("max_db_connections", "0".into(), Some("0")),
        setting("max_user_client_connections", limit(listener.limits.per_user), Some("0")),
        setting("max_user_connections", "0".into(), Some("0")),
        setting("stats_period", "60".into(), Some("60")),
        setting("stats_users", console.readers.join(","), Some("")),
        setting("tcp_keepidle", listener.keepalive.map_or("0".into(), seconds), Some("60")),
        setting("unix_socket_mode", format!("{:04o}", listener.unix_mode), Some("0660")),
    ]
}
