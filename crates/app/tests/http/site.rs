//! A running server of the protocol `http`, and its access log.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use tieline_testkit::{HttpConversation, PATIENCE, Tieline, wait_for, wait_until};

use crate::support::{OneRoute, row_of, start};

/// The defaults of [`OneRoute`] for this protocol, with an access log.
pub(crate) const HTTP: OneRoute<'_> = OneRoute {
    protocol: "http",
    server: "access_log = \"file:access.log\"",
    listener: "",
    route: "",
    upstream: "",
};

/// A server whose listener is `web`.
pub(crate) struct Site {
    pub(crate) tieline: Tieline,
    pub(crate) address: SocketAddr,
}

impl Site {
    /// Runs `config`.
    #[track_caller]
    pub(crate) fn start(config: &str) -> Site {
        let (tieline, address) = start(config);
        Site { tieline, address }
    }

    /// One route to `endpoints`, and nothing special.
    #[track_caller]
    pub(crate) fn to(endpoints: &[SocketAddr]) -> Site {
        Site::start(&HTTP.to(endpoints))
    }

    /// The listener `web` with these lines of routes and upstreams.
    #[track_caller]
    pub(crate) fn with_routes(routes: &str) -> Site {
        Site::start(&config_of(routes))
    }

    pub(crate) fn connect(&self) -> HttpConversation {
        HttpConversation::connect(self.address)
    }

    pub(crate) fn access_log(&self) -> PathBuf {
        self.tieline.directory().join("access.log")
    }

    /// The line of the access log for the request for `target`, once there is one.
    #[track_caller]
    pub(crate) fn log_line(&self, target: &str) -> Value {
        let look = || self.log_lines().into_iter().find(|line| line["target"] == target);
        wait_for(PATIENCE, look).unwrap_or_else(|| panic!("no line of {target}: {:#?}", self.log_lines()))
    }

    /// The id of the row of `client`.
    #[track_caller]
    pub(crate) fn row_id(&self, client: &HttpConversation) -> String {
        row_of(&self.tieline, client.stream())["id"].to_string()
    }

    /// Why the request for `target` ended, once it has.
    #[track_caller]
    pub(crate) fn reason(&self, target: &str) -> String {
        self.log_line(target)["reason"].as_str().unwrap().to_owned()
    }

    /// Waits until a request for `target` has ended for `reason`, of however many.
    #[track_caller]
    pub(crate) fn await_reason(&self, target: &str, reason: &str) {
        let look =
            || self.log_lines().iter().any(|line| line["target"] == target && line["reason"] == reason);
        assert!(wait_until(PATIENCE, look), "no {reason} of {target}: {:#?}", self.log_lines());
    }

    pub(crate) fn log_lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.access_log()).unwrap_or_default();
        // A line still being written has no end yet.
        let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// See [`Site::with_routes`].
pub(crate) fn config_of(routes: &str) -> String {
    let listener = "[listener.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\n";
    format!("[server]\nworkers = 2\naccess_log = \"file:access.log\"\n{listener}{routes}")
}

/// A GET of `target`, with more lines of its head.
pub(crate) fn request(target: &str, fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|line| format!("{line}\r\n")).collect();
    format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n")
}
