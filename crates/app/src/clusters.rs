//! Who asks servers of PostgreSQL what they are to each other: a task for each upstream where that matters.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Clock, Reason};
use tieline_config as config;
use tieline_pool::{Endpoint, OnLeave, Upstream};
use tieline_postgres::{Allowed, Cluster, MaxLag, ServerLogin, Watching};
use tieline_registry::{Filter, Registry, Verdict};
use tokio::task::{AbortHandle, JoinSet};

use crate::databases::login;
use crate::trust::Trust;

/// What is known of the servers of each such upstream. It outlives configs.
#[derive(Default)]
pub(crate) struct Clusters {
    by_name: HashMap<String, (Arc<Cluster>, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Clusters {
    /// Asks for whom `live` wants to know, and for nobody else.
    pub(crate) fn obey(
        &mut self,
        live: &config::Live,
        trust: &Trust,
        upstreams: &BTreeMap<Arc<str>, Arc<Upstream>>,
        registry: &Arc<Registry>,
    ) {
        let mut wanted = HashMap::new();
        for written in &live.upstreams {
            if let (Some(watching), Some(upstream)) =
                (watching(written, live, trust), upstreams.get(&*written.name))
            {
                wanted.insert(written.name.clone(), (watching, upstream));
            }
        }
        self.by_name.retain(|name, (_, task)| {
            let stays = wanted.contains_key(name);
            if !stays {
                task.abort();
            }
            stays
        });
        for (name, (watching, upstream)) in wanted {
            if let Some((cluster, _)) = self.by_name.get(&name) {
                cluster.obey(watching);
                continue;
            }
            let cluster = Cluster::new(watching, drain_demoted(registry, &name));
            cluster.begin(upstream);
            let task = self.tasks.spawn(cluster.clone().watch(upstream.clone()));
            self.by_name.insert(name, (cluster, task));
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// What is known of the servers of `upstream`, if anybody asks them.
    pub(crate) fn of(&self, upstream: &str) -> Option<Arc<Cluster>> {
        self.by_name.get(upstream).map(|(cluster, _)| cluster.clone())
    }
}

/// How the servers of `upstream` are asked; `None` if it does not matter what they are, or nobody can ask.
fn watching(upstream: &config::Upstream, live: &config::Live, trust: &Trust) -> Option<Watching> {
    let servers = upstream.postgres.as_ref()?;
    servers.asker()?;
    let mut routes = live.listeners.iter().flat_map(|listener| &listener.routes);
    let matters = upstream.endpoints.len() > 1
        || upstream.endpoints.iter().any(|endpoint| endpoint.role != config::Role::Auto)
        || routes.any(|route| {
            let asks = route.role.is_some() || route.replica_reads != config::ReplicaReads::Off;
            asks && route.upstreams().any(|name| *name == upstream.name)
        });
    let allowed = |endpoint: &config::Endpoint| {
        let allowed = match endpoint.role {
            config::Role::Auto => Allowed::Either,
            config::Role::Primary => Allowed::Primary,
            config::Role::Replica => Allowed::Replica,
        };
        (endpoint.address.clone(), allowed)
    };
    matters.then(|| Watching {
        login: asker(upstream, servers, trust),
        every: servers.replicas.every,
        within: upstream.connect_timeout,
        max_lag: MaxLag {
            time: servers.replicas.max_lag,
            bytes: servers.replicas.max_lag_bytes.map_or(u64::MAX, |bytes| bytes.0),
        },
        primary_stands_in: servers.replicas.fallback == config::Fallback::Primary,
        allowed: upstream.endpoints.iter().map(allowed).collect(),
    })
}

/// As whom servers are asked.
fn asker(upstream: &config::Upstream, servers: &config::PostgresServers, trust: &Trust) -> ServerLogin {
    let usual = login(upstream, servers, trust);
    let config::Replicas { user, password_file, .. } = &servers.replicas;
    let Some(user) = user else { return usual };
    let password = password_file.as_deref().and_then(|path| trust.password(path));
    ServerLogin { user: Some(user.as_str().into()), password, ..usual }
}

/// What happens to clients at a server that takes writes no more: they end their transactions, or are cut off
/// when the grace of their route is over. Who holds no server just now is not concerned.
fn drain_demoted(registry: &Arc<Registry>, upstream: &str) -> OnLeave {
    let (registry, upstream) = (Arc::downgrade(registry), upstream.to_owned());
    Arc::new(move |endpoint: &Endpoint| {
        let Some(registry) = registry.upgrade() else { return };
        let wanted = format!("upstream={upstream} endpoint={} stage=relay", endpoint.label());
        let Ok(filter) = wanted.parse::<Filter>() else { return };
        for record in registry.live(&filter) {
            let grace = record.route().map_or(Duration::ZERO, |route| route.grace);
            record.note(format!("{} is the primary no more", endpoint.label()));
            record.end(Verdict { at: Clock::now().after(grace), reason: Reason::Drained });
        }
    })
}
