//! TLS: towards clients, and towards servers.

use super::globals::Globals;
use super::notes::Notes;

/// TLS towards clients, and whether they must use it.
pub(super) struct ClientTls {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) ca: Option<String>,
    pub(super) required: bool,
}

/// What `globals` say of it; `None`: there is none.
pub(super) fn client_tls(globals: &mut Globals, notes: &mut Notes) -> Option<ClientTls> {
    let (mode, line) = globals.take("client_tls_sslmode").filter(|(mode, _)| mode != "disable")?;
    let asks = mode.starts_with("verify-");
    let ca = globals.take("client_tls_ca_file").and_then(|(ca, line)| {
        if !asks {
            notes.tell(line, format!("client_tls_ca_file means nothing with client_tls_sslmode = {mode}"));
        }
        asks.then_some(ca)
    });
    let [certificate, key] = ["client_tls_cert_file", "client_tls_key_file"]
        .map(|name| globals.take(name).map(|(value, _)| value));
    let (Some(certificate), Some(key)) = (certificate, key) else {
        notes.tell(line, format!("client_tls_sslmode = {mode} without a certificate and its key: no TLS"));
        return None;
    };
    if mode == "verify-ca" || mode == "verify-full" {
        notes.tell(
            line,
            format!("client_tls_sslmode = {mode}: every client needs a certificate of `client_ca`"),
        );
    }
    Some(ClientTls { certificate, key, ca, required: !matches!(&*mode, "allow" | "prefer") })
}

/// TLS towards servers.
pub(super) struct ServerTls {
    mode: String,
    line: usize,
    ca: Option<String>,
    certificate: Option<(String, String)>,
}

impl ServerTls {
    /// What `globals` say of it.
    pub(super) fn of(globals: &mut Globals, notes: &mut Notes) -> Self {
        let (tls, line) = globals.take("server_tls_sslmode").unwrap_or(("prefer".into(), 0));
        let ca = globals.take("server_tls_ca_file").map(|(value, _)| value);
        let pair = ["server_tls_cert_file", "server_tls_key_file"].map(|name| globals.take(name));
        let certificate = match pair {
            [Some((certificate, _)), Some((key, _))] => Some((certificate, key)),
            [Some((_, line)), None] | [None, Some((_, line))] => {
                let what = "server_tls_cert_file and server_tls_key_file mean nothing without one another";
                notes.tell(line, what.into());
                None
            }
            [None, None] => None,
        };
        Self { mode: tls, line, ca, certificate }
    }

    /// `tls` of an upstream, as TOML; `None`: as it is left out.
    pub(super) fn toml(&self, endpoints: &[String], line: usize, notes: &mut Notes) -> Option<String> {
        let usual = self;
        let is_here =
            |it: &String| ["unix:", "127.", "[::1]", "localhost:"].iter().any(|here| it.starts_with(here));
        let here = endpoints.iter().all(is_here);
        let tell = |what: &str, notes: &mut Notes| {
            notes.tell(
                if usual.line > 0 { usual.line } else { line },
                format!("server_tls_sslmode = {}: {what}", usual.mode),
            );
        };
        let ca = usual.ca.as_ref().map(|ca| format!("ca = {}", super::write::quoted(ca)));
        let own = usual.certificate.as_ref().map(|(certificate, key)| {
            format!(
                "certificate = {}, key = {}",
                super::write::quoted(certificate),
                super::write::quoted(key)
            )
        });
        let verified = |ca: Option<String>| {
            let parts: Vec<_> = ca.into_iter().chain(own.clone()).collect();
            Some(if parts.is_empty() {
                "\"verify-full\"".to_owned()
            } else {
                format!("{{ {} }}", parts.join(", "))
            })
        };
        let verifies = usual.mode.starts_with("verify-");
        if ca.is_some() && !verifies {
            tell("server_tls_ca_file means nothing with it", notes);
        }
        // No name and no signature, but a certificate of ours.
        let unverified = || match &own {
            Some(own) => format!("{{ verify = \"none\", {own} }}"),
            None => "\"require\"".into(),
        };
        if own.is_some() && (usual.mode == "disable" || here && !verifies && usual.mode != "require") {
            tell("server_tls_cert_file and server_tls_key_file mean nothing with it", notes);
        }
        match usual.mode.as_str() {
            "disable" => (!here).then(|| "\"off\"".to_owned()),
            "allow" | "prefer" if here => None,
            "allow" | "prefer" => {
                tell(
                    "nothing falls back to plain text; \"require\" is taken (\"off\" if a server has no TLS)",
                    notes,
                );
                Some(unverified())
            }
            "require" => Some(unverified()),
            "verify-ca" => {
                tell("the server's name is verified too", notes);
                verified(ca)
            }
            "verify-full" => verified(ca),
            other => {
                tell(&format!("\"{other}\" has no equivalent; \"verify-full\" is taken"), notes);
                verified(ca)
            }
        }
    }
}
