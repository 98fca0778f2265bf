//! `tieline run`: the life of the server, from its config to its last connection.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tieline_config::{Checked, Config};
use tieline_conn::{Server, Stopped};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::args::ConfigArgs;
use crate::house::{House, Request};
use crate::logging::{self, say};

/// Runs the server until it is told to stop.
pub(crate) fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    match Config::load(&args.config) {
        Ok(checked) if checked.config.live.agent.is_some() => {
            let file = args.config.display();
            say(&format!("{file}: is an agent's, by its [agent]; `tieline agent run -c {file}` runs it"));
            Ok(ExitCode::FAILURE)
        }
        Ok(checked) => serve(&args.config, checked, |house| say(&house.summary())),
        Err(problems) => {
            problems.iter().for_each(|problem| say(&problem.to_string()));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Serves by `checked`, read from `file`; `ready` is called once connections are accepted.
pub(crate) fn serve(file: &Path, checked: Checked, ready: impl FnOnce(&House)) -> anyhow::Result<ExitCode> {
    let volume = logging::start(checked.config.live.server.log, checked.config.boot.log_format);
    checked.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let limit = tieline_transport::raise_file_limit();
    tracing::debug!(before = limit.before, now = limit.now, "limit of open files");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stopped = runtime.block_on(async {
        // Before anybody can see that it runs: what the kernel sends then ends it in order.
        let signals = Signals::listen().context("cannot listen for signals")?;
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let mut house = House::open(file, checked.config, volume, requests).await?;
        ready(&house);
        let stopped = obey(&mut house, signals, asked).await;
        house.close().await;
        anyhow::Ok(stopped)
    })?;
    let cut = stopped.live - stopped.finished;
    say(&format!(
        "drained: {} connections were live, {} finished by themselves, {cut} were ended",
        stopped.live, stopped.finished
    ));
    Ok(ExitCode::SUCCESS)
}

/// How often certificate and key files are looked at for a change.
const TRUST_CHECKED_EVERY: Duration = Duration::from_secs(5);

/// How often it is looked whether an agent was revoked: its streams are to end within a second.
const AGENTS_JUDGED_EVERY: Duration = Duration::from_millis(250);

/// How many orders of operators may wait.
const REQUESTS_MAX: usize = 16;

/// What the kernel may send.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one. May be dropped at any time.
    async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.interrupt.recv() => Order::Stop,
            _ = self.terminate.recv() => Order::Stop,
            _ = self.hang_up.recv() => Order::ReopenLog,
        }
    }
}

/// What a signal means.
#[derive(PartialEq, Eq)]
enum Order {
    Stop,
    ReopenLog,
}

/// Obeys signals and operators until one of them says stop, and drains.
async fn obey(house: &mut House, mut signals: Signals, mut asked: mpsc::Receiver<Request>) -> Stopped {
    let mut renewals = tokio::time::interval(TRUST_CHECKED_EVERY);
    let mut judgements = tokio::time::interval(AGENTS_JUDGED_EVERY);
    loop {
        // Every arm may be dropped: what was sent stays queued.
        tokio::select! {
            order = signals.next() => match order {
                Order::Stop => break,
                Order::ReopenLog => house.reopen_access_log(),
            },
            request = asked.recv() => match request {
                Some(Request::Reload(answer)) => answer_reload(house, answer).await,
                Some(Request::Stop) | None => break,
            },
            _ = renewals.tick() => house.renew_trust().await,
            _ = judgements.tick() => house.judge_agents(),
        }
    }
    let server = house.server();
    let draining = drain(&server, signals, asked);
    let mut draining = std::pin::pin!(draining);
    loop {
        // Who is revoked meanwhile is ended meanwhile.
        tokio::select! {
            stopped = &mut draining => return stopped,
            _ = judgements.tick() => house.judge_agents(),
        }
    }
}

async fn answer_reload(house: &mut House, answer: oneshot::Sender<crate::house::ReloadResult>) {
    let result = house.reload().await;
    match &result {
        Ok(reloaded) => {
            tracing::info!(generation = reloaded.generation, changed = reloaded.changed, "reloaded")
        }
        Err(problems) => {
            tracing::error!("reload refused, nothing has changed");
            problems.iter().for_each(|problem| tracing::error!("{problem}"));
        }
    }
    // Whoever asked may have hung up: the reload stands all the same.
    let _ = answer.send(result);
}

/// Drains, until the last connection has ended; a second order to stop makes it hurry.
async fn drain(server: &Arc<Server>, mut signals: Signals, mut asked: mpsc::Receiver<Request>) -> Stopped {
    say("draining: no new connections; once more to end the live ones now");
    let hurry = async move {
        loop {
            tokio::select! {
                order = signals.next() => if order == Order::Stop { return },
                request = asked.recv() => match request {
                    Some(Request::Stop) => return,
                    Some(Request::Reload(answer)) => {
                        let _ = answer.send(Err(vec!["the server is stopping".into()]));
                    }
                    None => std::future::pending().await,
                },
            }
        }
    };
    server.stop(hurry).await
}
