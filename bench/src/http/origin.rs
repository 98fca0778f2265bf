//! The backend of all scenarios but one: nginx, with pages whose every byte is known.

use std::net::SocketAddr;

use tempfile::TempDir;
use tieline_testkit::{Nginx, free_port, loopback};

use crate::config::NGINX_REQUESTS;

/// The body of a small answer, in bytes.
pub(crate) const SMALL: usize = 128;

/// A request, and the body that must come back.
pub(crate) struct Page {
    pub(crate) request: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Page {
    /// A page of `size` bytes, called by its size.
    pub(crate) fn of(size: usize) -> Page {
        let request =
            format!("GET /{size} HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n");
        // A prime period: what is lost, doubled or moved by a whole buffer shows.
        let body = (0..size).map(|at| b'a' + u8::try_from(at % 23).unwrap_or(0)).collect();
        Page { request: request.into_bytes(), body }
    }
}

/// A running nginx that serves pages and closes nothing.
pub(crate) struct Origin {
    _nginx: Nginx,
    address: SocketAddr,
    _root: TempDir,
}

impl Origin {
    /// Serves a page for each of `sizes`.
    pub(crate) fn start(sizes: &[usize]) -> anyhow::Result<Origin> {
        let (root, address) = (tempfile::tempdir()?, loopback(free_port()));
        for &size in sizes {
            std::fs::write(root.path().join(size.to_string()), Page::of(size).body)?;
        }
        let body = format!(
            "sendfile on; tcp_nopush on; open_file_cache max=16; open_file_cache_valid 1h;\n\
             server {{ listen {address} backlog=4096; root {};\n\
             keepalive_timeout 1h; keepalive_requests {NGINX_REQUESTS}; }}",
            root.path().display()
        );
        Ok(Origin { _nginx: Nginx::http(&body, address), address, _root: root })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}
