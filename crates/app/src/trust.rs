//! Certificates and keys: read before anything changes, kept while their files stay as they are.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tieline_base::Secret;
use tieline_config as config;
use tieline_http::SessionKeys;
use tieline_postgres::Users;
use tieline_transport::tls::{
    Alpn, CertificateFiles, ClientCertificates, ClientTls, ClientTlsSettings, Roots, ServerTls,
    ServerTlsSettings, Verify, self_signed,
};

use tieline_tunnel::Agents;

use crate::passwords::Passwords;
use crate::session_keys;

/// What listeners and upstreams prove themselves by, by their names.
pub(crate) struct Trust {
    /// Who links up, and who vouches for them. It outlives configs.
    agents: Arc<Agents>,
    listeners: HashMap<String, (ServerTlsSettings, Arc<ServerTls>)>,
    upstreams: HashMap<String, (ClientTlsSettings, Arc<ClientTls>)>,
    session_keys: Option<Arc<SessionKeys>>,
    passwords: Passwords,
}

impl Trust {
    /// Trust in nobody yet but what `agents` have.
    pub(crate) fn of(agents: Arc<Agents>) -> Trust {
        let (listeners, upstreams, session_keys, passwords) = Default::default();
        Trust { agents, listeners, upstreams, session_keys, passwords }
    }

    /// The agents of this server.
    pub(crate) fn agents(&self) -> &Arc<Agents> {
        &self.agents
    }

    /// Reads what `live` names; what `before` holds of it already, and whose files are as they were, stays.
    /// Certificates of our own making are kept in `folder`.
    ///
    /// # Errors
    /// Every file that is of no use, and why.
    pub(crate) fn load(live: &config::Live, folder: &Path, before: &Trust) -> Result<Trust, Vec<String>> {
        let (mut trust, mut errors) = (Trust::of(before.agents.clone()), Vec::new());
        for listener in &live.listeners {
            let loaded = match (&listener.tls, listener.protocol) {
                (_, config::Protocol::Tunnel) => before.of_tunnel(listener),
                (Some(tls), _) => {
                    before.of_listener(listener, tls, folder).map_err(|error| error.to_string())
                }
                (None, _) => continue,
            };
            match loaded {
                Ok(loaded) => drop(trust.listeners.insert(listener.name.clone(), loaded)),
                Err(error) => errors.push(format!("listener \"{}\": {error}", listener.name)),
            }
        }
        for upstream in &live.upstreams {
            let Some(tls) = &upstream.tls else { continue };
            match before.of_upstream(upstream, tls) {
                Ok(loaded) => drop(trust.upstreams.insert(upstream.name.clone(), loaded)),
                Err(error) => errors.push(format!("upstream \"{}\": {error}", upstream.name)),
            }
        }
        if live.listeners.iter().flat_map(|listener| &listener.routes).any(|route| route.session.is_some()) {
            match session_keys::load(folder) {
                Ok(keys) => trust.session_keys = Some(Arc::new(keys)),
                Err(error) => errors.push(error),
            }
        }
        match Passwords::load(live, folder, &before.passwords) {
            Ok(passwords) => trust.passwords = passwords,
            Err(wrong) => errors.extend(wrong),
        }
        if errors.is_empty() { Ok(trust) } else { Err(errors) }
    }

    /// Whether a file no longer holds what was read from it.
    pub(crate) fn changed(&self) -> bool {
        self.listeners.values().any(|(_, tls)| tls.changed())
            || self.upstreams.values().any(|(_, tls)| tls.changed())
            || self.passwords.changed()
    }

    /// What seals the cookies of sessions, if some route has them.
    pub(crate) fn session_keys(&self) -> Option<&Arc<SessionKeys>> {
        self.session_keys.as_ref()
    }

    /// Who may log in with a password.
    pub(crate) fn users(&self) -> Arc<Users> {
        self.passwords.users()
    }

    /// The password in the file at `path`.
    pub(crate) fn password(&self, path: &Path) -> Option<Secret> {
        self.passwords.of(path)
    }

    /// How TLS ends at this listener.
    pub(crate) fn listener(&self, name: &str) -> Option<Arc<ServerTls>> {
        self.listeners.get(name).map(|(_, tls)| tls.clone())
    }

    /// TLS towards this upstream.
    pub(crate) fn upstream(&self, name: &str) -> Option<Arc<ClientTls>> {
        self.upstreams.get(name).map(|(_, tls)| tls.clone())
    }

    fn of_listener(
        &self,
        listener: &config::Listener,
        tls: &config::ListenerTls,
        folder: &Path,
    ) -> Result<(ServerTlsSettings, Arc<ServerTls>), tieline_transport::tls::TlsError> {
        let (certificates, client) = match tls {
            config::ListenerTls::SelfSigned => (vec![self_signed(folder, &own_names(listener))?], None),
            config::ListenerTls::Certificates(all) => {
                let files = |one: &config::Certificate| CertificateFiles {
                    chain: one.certificate.clone(),
                    key: one.key.clone(),
                };
                (all.iter().map(files).collect(), all.iter().find_map(|one| one.client.as_ref()))
            }
        };
        let client_certificates = client.map(client_certificates);
        let alpn = alpn(listener);
        let settings =
            ServerTlsSettings { certificates, alpn, client_certificates, ..ServerTlsSettings::default() };
        self.loaded(listener, settings)
    }

    /// Agents and this server believe the built-in authority, and nobody else; people may have another.
    fn of_tunnel(&self, listener: &config::Listener) -> Result<(ServerTlsSettings, Arc<ServerTls>), String> {
        let authority = self.agents.authority().map_err(|error| error.to_string())?;
        let mut settings = authority.listener();
        settings.guests = listener.people.as_ref().map(client_certificates);
        self.loaded(listener, settings).map_err(|error| error.to_string())
    }

    fn loaded(
        &self,
        listener: &config::Listener,
        settings: ServerTlsSettings,
    ) -> Result<(ServerTlsSettings, Arc<ServerTls>), tieline_transport::tls::TlsError> {
        match self.listeners.get(&listener.name) {
            Some((same, loaded)) if *same == settings && !loaded.changed() => Ok((settings, loaded.clone())),
            _ => {
                let loaded = ServerTls::load(&settings)?;
                loaded.warnings().iter().for_each(|text| tracing::warn!(listener = listener.name, "{text}"));
                Ok((settings, Arc::new(loaded)))
            }
        }
    }

    fn of_upstream(
        &self,
        upstream: &config::Upstream,
        tls: &config::UpstreamTls,
    ) -> Result<(ClientTlsSettings, Arc<ClientTls>), tieline_transport::tls::TlsError> {
        let files = |one: &config::TlsIdentity| CertificateFiles {
            chain: one.certificate.clone(),
            key: one.key.clone(),
        };
        let settings = ClientTlsSettings {
            roots: tls.ca.clone().map_or(Roots::System, Roots::Bundle),
            verify: match tls.verify {
                config::Verify::Full => Verify::Full,
                config::Verify::None => Verify::DangerouslyNone,
            },
            certificate: tls.identity.as_ref().map(files),
            server_name: tls.server_name.clone(),
            alpn: match &upstream.postgres {
                Some(_) => Alpn::new(tieline_postgres::ALPN).into_iter().collect(),
                None => Vec::new(),
            },
            ..ClientTlsSettings::default()
        };
        match self.upstreams.get(&upstream.name) {
            Some((same, loaded)) if *same == settings && !loaded.changed() => Ok((settings, loaded.clone())),
            _ => {
                let loaded = ClientTls::load(&settings)?;
                loaded.warnings().iter().for_each(|text| tracing::warn!(upstream = upstream.name, "{text}"));
                Ok((settings, Arc::new(loaded)))
            }
        }
    }
}

fn client_certificates(client: &config::ClientCertificates) -> ClientCertificates {
    let config::ClientCertificates { ca, crl, required } = client.clone();
    ClientCertificates { ca, crl, required }
}

/// What a certificate of our own making bears: the hosts of the routes, and this machine.
fn own_names(listener: &config::Listener) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    for host in listener.routes.iter().flat_map(|route| &route.matches.hosts) {
        let host = host.to_string();
        if !names.contains(&host) {
            names.push(host);
        }
    }
    names
}

fn alpn(listener: &config::Listener) -> Vec<Alpn> {
    let names: &[&[u8]] = match (listener.protocol, listener.http2) {
        (config::Protocol::Http, true) => &[b"h2", b"http/1.1"],
        (config::Protocol::Http, false) => &[b"http/1.1"],
        (config::Protocol::Postgres, _) => &[tieline_postgres::ALPN],
        _ => &[],
    };
    names.iter().filter_map(|name| Alpn::new(name)).collect()
}
