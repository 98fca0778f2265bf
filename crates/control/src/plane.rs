//! What the control plane reads and gives orders to.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;
use tieline_base::Secret;
use tieline_config::Live;
use tieline_conn::{Server, Swept};
use tieline_policy::{AdminPermit, Proved};
use tieline_tunnel::{Agents, PersonToken, TokenError};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::access_log::AccessLog;
use crate::api::Answers;
use crate::events::{Event, Events};
use crate::metrics::Exposition;

/// The running server, as operators may see and steer it. Cheap to clone. Everything that tells or changes
/// something takes an [`AdminPermit`], so that a route that forgot to ask for one does not compile.
#[derive(Clone)]
pub struct Plane(Arc<Inner>);

/// What a plane is made of; the app gives it.
pub struct Parts {
    /// The data plane, with the registry in it.
    pub server: Arc<Server>,
    /// Our version.
    pub version: &'static str,
    /// The data folder.
    pub data: PathBuf,
    /// The config file, as it was named at the start.
    pub config_file: PathBuf,
    /// The config in force.
    pub config: Box<dyn Fn() -> Arc<Live> + Send + Sync>,
    /// What opens the network door.
    pub token: Secret,
    /// Where what happens is told.
    pub events: Events,
    /// The agents at far sites.
    pub agents: Arc<Agents>,
    /// The access log, for its losses to be counted.
    pub access_log: Arc<AccessLog>,
    /// Reads the config file again and obeys it.
    pub reload: Reload,
    /// Begins a stop; a second call makes it hurry.
    pub stop: Stop,
}

/// Reads the config file again and obeys it, or says every reason why not.
pub type Reload = Box<dyn Fn() -> Reloading + Send + Sync>;

/// A reload on its way.
pub type Reloading = Pin<Box<dyn Future<Output = Result<Reloaded, Vec<String>>> + Send>>;

/// Begins a stop, without waiting for its end.
pub type Stop = Box<dyn Fn() + Send + Sync>;

/// What a reload did.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema, Debug)]
pub struct Reloaded {
    /// Which config is in force now; rises by one for each that differs from the one before.
    pub generation: u32,
    /// Whether the file said anything new.
    pub changed: bool,
    /// What the file says that should be thought over, one line each.
    pub warnings: Vec<String>,
    /// Keys that differ and that only a restart changes.
    pub restart_needed: Vec<String>,
    /// Live connections decided about again.
    pub seen: usize,
    /// Those that policy no longer allows: ended at once.
    pub revoked: usize,
    /// Those whose listener, route or upstream is gone: ended when the grace is over.
    pub leaving: usize,
}

impl Reloaded {
    /// The counts of `swept` in it.
    #[must_use]
    pub fn with_swept(self, swept: Swept) -> Self {
        Self { seen: swept.seen, revoked: swept.revoked, leaving: swept.leaving, ..self }
    }
}

struct Inner {
    parts: Parts,
    one_reload: Semaphore,
    reloads: Arc<Reloads>,
    exposition: Exposition,
}

/// How many reloads there were since the start.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    pub(crate) succeeded: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl Plane {
    /// A plane of `parts`.
    pub fn new(parts: Parts) -> Self {
        let reloads = Arc::new(Reloads::default());
        let exposition =
            Exposition::new(parts.version, parts.server.clone(), parts.access_log.clone(), reloads.clone());
        Self(Arc::new(Inner { parts, one_reload: Semaphore::new(1), reloads, exposition }))
    }

    /// Reads the config file again and obeys it. One reload at a time; it goes on to its end even if whoever
    /// asked for it has hung up.
    ///
    /// # Errors
    /// Every reason why the file cannot be obeyed, a line each; nothing has changed then.
    pub async fn reload(&self, _permit: &AdminPermit) -> Result<Reloaded, Vec<String>> {
        let plane = self.clone();
        #[allow(clippy::disallowed_methods)] // dropped half done, a reload would leave two configs in force
        let reload = tokio::spawn(async move { plane.reload_once().await });
        let defect = |_| Err(vec!["the reload broke off: a defect; the server's log says more".into()]);
        reload.await.unwrap_or_else(defect)
    }

    async fn reload_once(&self) -> Result<Reloaded, Vec<String>> {
        // The semaphore is never closed, so there is no error to look at.
        let _turn = self.0.one_reload.acquire().await;
        let result = (self.0.parts.reload)().await;
        let Reloads { succeeded, failed } = &*self.0.reloads;
        if result.is_ok() { succeeded } else { failed }.fetch_add(1, Relaxed);
        self.0.parts.events.tell(|| Event::Reload(result.clone()));
        result
    }

    /// Begins a stop; a second call makes it hurry.
    pub fn stop(&self, _permit: &AdminPermit) {
        (self.0.parts.stop)();
    }

    /// The data plane.
    pub(crate) fn server(&self, _permit: &AdminPermit) -> &Arc<Server> {
        &self.0.parts.server
    }

    /// Whether the config in force lists `name` as one of the API's, in any case; asked before who asks is
    /// known.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let config = (self.0.parts.config)();
        config.server.admin_hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
    }

    /// The config in force.
    pub(crate) fn config(&self, _permit: &AdminPermit) -> Arc<Live> {
        (self.0.parts.config)()
    }

    /// What the plane is made of.
    pub(crate) fn parts(&self, _permit: &AdminPermit) -> &Parts {
        &self.0.parts
    }

    /// Where whoever has proved that he `answers` requests for approvals does so.
    pub(crate) fn approvals(&self, _answers: &Answers) -> &Agents {
        &self.0.parts.agents
    }

    /// Whom a person's `token` proves.
    ///
    /// # Errors
    /// [`TokenError`]: nobody.
    pub(crate) async fn person(&self, token: PersonToken) -> Result<Arc<Proved>, TokenError> {
        self.0.parts.agents.proved(token).await
    }

    /// How many reloads there were.
    pub(crate) fn reloads(&self, _permit: &AdminPermit) -> &Reloads {
        &self.0.reloads
    }

    /// Every metric as it stands now.
    pub(crate) fn exposition(&self, _permit: &AdminPermit) -> &Exposition {
        &self.0.exposition
    }

    /// Whether `offered` is the admin token.
    pub(crate) fn proves(&self, offered: &str) -> bool {
        self.0.parts.token.matches(offered)
    }

    /// Tells of endpoints whose standing changes, for as long as it runs; see [`Events::watch_endpoints`].
    pub(crate) async fn watch_endpoints(&self) {
        self.0.parts.events.watch_endpoints(&self.0.parts.server).await;
    }
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane").field("version", &self.0.parts.version).finish_non_exhaustive()
    }
}
