//! The running server as a whole: data plane, control plane, what keeps the upstreams, and the config they
//! obey.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tieline_base::Address;
use tieline_config::{AccessLog as Target, Checked, Config, Live, Workers, restart_needed};
use tieline_conn::Server;
use tieline_control::{AccessLog, AccessLogTarget, Doors, Events, Parts, Plane, Reloaded, TOKEN_NAME};
use tieline_pool::Upstream;
use tieline_registry::{Exchanged, Limits, Record, Registry};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::assembly::{Assembly, Compiled};
use crate::logging::Volume;

/// What operators may ask of the house.
pub(crate) enum Request {
    /// Read the config again and obey it.
    Reload(oneshot::Sender<ReloadResult>),
    /// Stop; asked again: at once.
    Stop,
}

/// What a reload did, or every reason why it did nothing.
pub(crate) type ReloadResult = Result<Reloaded, Vec<String>>;

/// Everything that runs.
pub(crate) struct House {
    file: PathBuf,
    config: Config,
    /// The part of it that operators may look at.
    shown: watch::Sender<Arc<Live>>,
    assembly: Assembly,
    server: Arc<Server>,
    keepers: Keepers,
    access_log: Arc<AccessLog>,
    volume: Volume,
    admin: Admin,
}

impl House {
    /// Sets everything up, and accepts.
    pub(crate) async fn open(
        file: &Path,
        config: Config,
        volume: Volume,
        requests: mpsc::Sender<Request>,
    ) -> anyhow::Result<House> {
        // The token makes the data folder; the doors are bound before anything runs, so that a second server
        // in the same folder, or one that could not be steered, never starts.
        let token = tieline_control::admin_token(&config.boot.data)?;
        let doors = Doors::bind(&config.boot.data, config.boot.admin_listen)?;
        let access_log =
            AccessLog::open(target(&config.live.server.access_log)).context("cannot open the access log")?;
        let events = Events::default();
        let registry = Arc::new(registry(&config, &access_log, &events)?);
        let mut assembly = Assembly::new(&file.display().to_string(), &config.boot.data, registry.clone());
        let server = Arc::new(Server::start(registry, assembly.empty()).context("cannot start the workers")?);
        let joined = |lines: Vec<String>| anyhow::anyhow!(lines.join("\n"));
        let trust = assembly.load_trust(&config.live).map_err(joined)?;
        let apis = assembly.guards.load(&config.live).map_err(joined)?;
        assembly.bind(&config.live).map_err(one_error)?;
        assembly.trust_in(trust);
        assembly.guards.keep_to(apis);
        let compiled = assembly.compile(&config.live, true);
        let shown = watch::Sender::new(Arc::new(config.live.clone()));
        let plane = Plane::new(Parts {
            server: server.clone(),
            version: env!("CARGO_PKG_VERSION"),
            data: std::path::absolute(&config.boot.data).unwrap_or_else(|_| config.boot.data.clone()),
            config_file: file.into(),
            config: shown_config(&shown),
            token,
            events,
            agents: assembly.agents(),
            access_log: access_log.clone(),
            reload: reload_by(&requests),
            stop: stop_by(requests),
        });
        assembly.seats.desk.open(server.clone(), plane.clone(), shown.subscribe());
        let admin = Admin::open(plane, doors)?;
        let mut house = House {
            file: file.into(),
            config,
            shown,
            assembly,
            server,
            keepers: Keepers::default(),
            access_log,
            volume,
            admin,
        };
        house.obey(compiled).await;
        Ok(house)
    }

    /// The data plane.
    pub(crate) fn server(&self) -> Arc<Server> {
        self.server.clone()
    }

    /// Where the admin API answers, if it is on the network.
    pub(crate) fn admin_address(&self) -> Option<&Address> {
        self.admin.network.as_ref()
    }

    /// The admin token's file.
    pub(crate) fn token_file(&self) -> PathBuf {
        let file = self.config.boot.data.join(TOKEN_NAME);
        std::path::absolute(&file).unwrap_or(file)
    }

    /// One line about what runs.
    pub(crate) fn summary(&self) -> String {
        let snapshot = self.server.snapshot();
        let listeners = snapshot.listeners.values().flat_map(|listener| {
            listener.doors.iter().map(|(bound, _)| format!("{} on {}", listener.row.name, bound.address()))
        });
        let listeners: Vec<String> = listeners.collect();
        let admin = self.admin_address().map_or("off".into(), |address| format!("http://{address}"));
        format!("tieline is ready: {}; admin API {admin}", listeners.join(", "))
    }

    /// Opens the access log's file again, after somebody has moved it away.
    pub(crate) fn reopen_access_log(&self) {
        if let Err(error) = self.access_log.reopen() {
            tracing::error!(%error, "cannot reopen the access log; it goes on in the old file");
        }
    }

    /// Reads the config file again and obeys it. All that can fail comes first, so that a failure changes
    /// nothing.
    pub(crate) async fn reload(&mut self) -> ReloadResult {
        let lines =
            |problems: Vec<tieline_config::Problem>| problems.iter().map(ToString::to_string).collect();
        let Checked { config, warnings } = Config::load(&self.file).map_err(lines)?;
        let changed = self.prepare(&config.live)? || config.live != self.config.live;
        let compiled = self.assembly.compile(&config.live, changed);
        let report = Reloaded {
            generation: compiled.snapshot.generation.0,
            changed,
            warnings: lines(warnings),
            restart_needed: restart_needed(&self.config, &config),
            seen: 0,
            revoked: 0,
            leaving: 0,
        };
        // What needs a restart stays as it is.
        self.config.live = config.live;
        self.shown.send_replace(Arc::new(self.config.live.clone()));
        self.volume.set(self.config.live.server.log);
        self.server.registry().set_history(history(&self.config));
        Ok(report.with_swept(self.obey(compiled).await))
    }

    /// Ends the links of agents that were revoked.
    pub(crate) fn judge_agents(&self) {
        self.assembly.judge_agents();
    }

    /// Reads certificates and keys again if their files have changed: new connections get the new ones, and
    /// those that live go on.
    pub(crate) async fn renew_trust(&mut self) {
        if !self.assembly.trust_changed() {
            return;
        }
        match self.assembly.load_trust(&self.config.live) {
            Ok(trust) => {
                self.assembly.trust_in(trust);
                let compiled = self.assembly.compile(&self.config.live, false);
                self.obey(compiled).await;
                tracing::info!("certificates or keys have changed and were read again");
            }
            Err(lines) => lines.iter().for_each(|line| tracing::error!("the old one stays in use: {line}")),
        }
    }

    /// Does all of a reload that can fail; where something does, what was done before it is undone. Whether a
    /// file that the config names says something new.
    fn prepare(&mut self, live: &Live) -> Result<bool, Vec<String>> {
        let lines =
            |errors: Vec<tieline_transport::BindError>| errors.iter().map(ToString::to_string).collect();
        let trust = self.assembly.load_trust(live)?;
        let apis = self.assembly.guards.load(live)?;
        self.assembly.bind(live).map_err(|errors| -> Vec<String> { lines(errors) })?;
        if live.server.access_log != self.config.live.server.access_log {
            self.access_log.write_to(target(&live.server.access_log)).map_err(|error| {
                self.assembly.retire(&self.config.live);
                vec![format!("cannot open the access log: {error}")]
            })?;
        }
        self.assembly.trust_in(trust);
        Ok(self.assembly.guards.keep_to(apis))
    }

    /// Delivers what was compiled, and lets go of what it no longer names.
    async fn obey(&mut self, compiled: Compiled) -> tieline_conn::Swept {
        self.keepers.start(compiled.new_upstreams);
        let swept = self.server.deliver(compiled.snapshot).await;
        self.assembly.agents().ask_again();
        self.keepers.end(&compiled.gone_upstreams);
        self.assembly.retire(&self.config.live);
        swept
    }

    /// Ends what is left when the last connection is gone.
    pub(crate) async fn close(self) {
        self.admin.close();
        self.access_log.close(FLUSH_MAX);
    }
}

/// How long the access log may take for its last lines.
const FLUSH_MAX: Duration = Duration::from_secs(2);

fn registry(config: &Config, access_log: &Arc<AccessLog>, events: &Events) -> anyhow::Result<Registry> {
    let workers = match config.boot.workers {
        Workers::Auto => std::thread::available_parallelism().context("cannot count the cores")?.get(),
        Workers::Count(count) => usize::from(count),
    };
    let (log, events) = (access_log.clone(), events.clone());
    let finished = Box::new(move |record: &Arc<Record>| {
        log.row(record);
        events.ended(record);
    });
    let log = access_log.clone();
    let exchanged = Box::new(move |record: &Arc<Record>, exchanged: &Exchanged| {
        log.exchange(record, exchanged);
    });
    Ok(Registry::new(workers, history(config), finished).telling(exchanged))
}

fn history(config: &Config) -> Limits {
    Limits { age: config.live.server.history, rows: config.live.server.history_rows }
}

fn target(target: &Target) -> AccessLogTarget {
    match target {
        Target::Off => AccessLogTarget::Off,
        Target::Stdout => AccessLogTarget::Stdout,
        Target::Syslog(path) => AccessLogTarget::Syslog(path.clone()),
        Target::File { path, .. } => AccessLogTarget::File(path.clone()),
    }
}

fn one_error(errors: Vec<tieline_transport::BindError>) -> anyhow::Error {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    anyhow::anyhow!(lines.join("\ntieline: "))
}

fn shown_config(shown: &watch::Sender<Arc<Live>>) -> Box<dyn Fn() -> Arc<Live> + Send + Sync> {
    let shown = shown.subscribe();
    Box::new(move || shown.borrow().clone())
}

fn reload_by(requests: &mpsc::Sender<Request>) -> tieline_control::Reload {
    let requests = requests.clone();
    Box::new(move || {
        let requests = requests.clone();
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let stopping = || vec!["the server is stopping".to_owned()];
            requests.send(Request::Reload(answer)).await.map_err(|_| stopping())?;
            answered.await.unwrap_or_else(|_| Err(stopping()))
        })
    })
}

fn stop_by(requests: mpsc::Sender<Request>) -> tieline_control::Stop {
    // A full queue means that as many orders wait already.
    Box::new(move || drop(requests.try_send(Request::Stop)))
}

/// What checks and resolves the upstreams, one task each.
#[derive(Default)]
struct Keepers {
    tasks: JoinSet<()>,
    by_name: HashMap<String, AbortHandle>,
}

impl Keepers {
    fn start(&mut self, upstreams: Vec<Arc<Upstream>>) {
        for upstream in upstreams {
            let name = upstream.name().to_owned();
            let task = self.tasks.spawn(upstream.keep(std::future::pending()));
            self.by_name.insert(name, task);
        }
    }

    fn end(&mut self, upstreams: &[Arc<Upstream>]) {
        for upstream in upstreams {
            if let Some(task) = self.by_name.remove(upstream.name()) {
                task.abort();
            }
        }
        while self.tasks.try_join_next().is_some() {}
    }
}

/// Makes the calling thread give way to the workers where there are fewer cores than work: a long list must
/// not cost anybody's connection its latency.
fn yield_to_connections() {
    // Linux counts niceness by the thread. A kernel that refuses leaves things as they were.
    let _ = rustix::process::nice(CONTROL_NICENESS);
}

/// A tenth of a worker's share of a contended core.
const CONTROL_NICENESS: i32 = 10;

/// The control plane, on a thread and a runtime of its own.
struct Admin {
    network: Option<Address>,
    done: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Admin {
    fn open(plane: Plane, doors: Doors) -> anyhow::Result<Admin> {
        let network = doors.network().cloned();
        let (done, until) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control")
            .on_thread_start(yield_to_connections)
            .enable_all()
            .build()
            .context("cannot start the control plane")?;
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            yield_to_connections();
            let until = async { drop(until.await) };
            if let Err(error) = runtime.block_on(tieline_control::serve(plane, doors, until)) {
                tracing::error!(%error, "the admin API has ended");
            }
        })?;
        Ok(Admin { network, done, thread })
    }

    fn close(self) {
        drop(self.done);
        // It says goodbye within a second.
        let _ = self.thread.join();
    }
}
