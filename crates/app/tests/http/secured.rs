//! A running server of the protocol `http` over TLS, and its clients.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;
use tieline_testkit::{Authority, Finished, PATIENCE, Pair, TlsClient, finish, program, wait_for};

use crate::site::Site;
use crate::support::{await_finished, finished};

/// The name that certificates of servers are for.
pub(crate) const HOST: &str = "shop.test";

/// A server that shows a certificate of `authority`, and what it answers to whom.
pub(crate) struct Secured {
    pub(crate) site: Site,
    pub(crate) authority: Authority,
}

/// `certificate = "…", key = "…"`, as they stand in a table.
pub(crate) fn files(pair: &Pair) -> String {
    format!("certificate = \"{}\", key = \"{}\"", pair.certificate.display(), pair.key.display())
}

/// The route of every request to `origin`.
pub(crate) fn all_to(origin: SocketAddr) -> String {
    format!(
        "[[listener.web.route]]\nupstream = \"service\"\naccess = \"public\"\n\
         [upstream.service]\nendpoints = [\"{origin}\"]\n"
    )
}

impl Secured {
    /// The listener `web` with a certificate for [`HOST`], to which `more` adds keys, and these routes.
    #[track_caller]
    pub(crate) fn start(more: impl FnOnce(&Authority) -> String, routes: &str) -> Secured {
        let authority = Authority::new();
        let tls = format!("tls = {{ {}{} }}\n", files(&authority.server(&[HOST])), more(&authority));
        Secured { site: Site::with_routes(&(tls + routes)), authority }
    }

    /// curl's answer to a GET of `path` at [`HOST`].
    pub(crate) fn curl(&self, arguments: &[&str], path: &str) -> Finished {
        curl(self.site.address, &self.authority, HOST, arguments, path)
    }

    /// The status of a GET of `/` with the certificate `pair`; curl's own words if there is none.
    pub(crate) fn status(&self, pair: Option<&Pair>) -> String {
        let shown = pair.map(|pair| (text(&pair.certificate), text(&pair.key)));
        let mut arguments = vec!["-o", "/dev/null", "-w", "%{http_code}"];
        if let Some((certificate, key)) = &shown {
            arguments.extend(["--cert", certificate, "--key", key]);
        }
        let answer = self.curl(&arguments, "/");
        if answer.success() { answer.stdout } else { answer.stderr }
    }

    /// A connection that stays, as the holder of `pair`.
    #[track_caller]
    pub(crate) fn connect(&self, pair: Option<&Pair>, arguments: &[&str]) -> TlsClient {
        let mut all: Vec<String> = vec!["-CAfile".into(), text(&self.authority.ca())];
        all.extend(["-servername", HOST, "-verify_return_error"].map(Into::into));
        if let Some(pair) = pair {
            all.extend(["-cert".into(), text(&pair.certificate), "-key".into(), text(&pair.key)]);
        }
        all.extend(arguments.iter().map(|&argument| argument.into()));
        TlsClient::connect(self.site.address, all)
    }

    /// Waits for a connection that ended for `reason`; its row.
    #[track_caller]
    pub(crate) fn await_reason(&self, reason: &str) -> Value {
        await_finished(&self.site.tieline, &format!("reason={reason}"), 1).remove(0)
    }

    /// What lay beneath the latest end for `reason`.
    #[track_caller]
    pub(crate) fn detail_of(&self, reason: &str) -> String {
        let row = self.await_reason(reason);
        let story = self.site.tieline.get(&format!("/api/v1/connections/{}", row["id"]));
        story["detail"].as_str().unwrap_or_default().to_owned()
    }

    /// Whether a connection has ended for `reason`.
    pub(crate) fn has_ended(&self, reason: &str) -> bool {
        !finished(&self.site.tieline, &format!("reason={reason}")).is_empty()
    }
}

/// A whole request for `path`.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

/// curl's answer to a GET of `path` at `host`, which it finds at `address` and trusts by `authority`.
pub(crate) fn curl(
    address: SocketAddr,
    authority: &Authority,
    host: &str,
    arguments: &[&str],
    path: &str,
) -> Finished {
    let resolve = format!("{host}:{}:{}", address.port(), address.ip());
    let url = format!("https://{host}:{}{path}", address.port());
    let mut command = Command::new(program("curl"));
    command.args(["-sS", "--max-time", "30", "--resolve", &resolve, "--cacert"]).arg(authority.ca());
    finish(command.args(arguments).arg(url))
}

/// The serial number of the certificate that `address` shows for `host`, in hexadecimal.
pub(crate) fn serial_shown(address: SocketAddr, host: &str) -> Option<String> {
    let client = TlsClient::connect(address, ["-servername", host, "-showcerts"]);
    let pem = wait_for(PATIENCE, || {
        let output = client.output();
        let (_, rest) = output.split_once("-----BEGIN CERTIFICATE-----")?;
        let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
        Some(format!("-----BEGIN CERTIFICATE-----{body}-----END CERTIFICATE-----\n"))
    })?;
    let file = tempfile::NamedTempFile::new().ok()?;
    std::fs::write(file.path(), pem).ok()?;
    let mut openssl = Command::new(program("openssl"));
    let shown = finish(openssl.args(["x509", "-noout", "-serial", "-in"]).arg(file.path()));
    shown.expect("openssl x509").strip_prefix("serial=").map(str::to_owned)
}

fn text(path: &std::path::Path) -> String {
    path.display().to_string()
}
