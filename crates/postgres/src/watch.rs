//! Asking servers what they are: a connection of its own to each, outside of the pool.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Clock, EndpointAddr};
use tieline_pool::balance::stable_key;
use tieline_pool::{Endpoint, Fit, Upstream};
use tieline_transport::dial_first;
use tieline_wire::postgres::backend::kind;
use tieline_wire::postgres::frontend::push_query;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::ask::{Row, row};
use crate::cluster::{Cluster, Watching};
use crate::login::server::{LogInError, said};
use crate::login::{Credential, Line};
use crate::roles::{Origin, Sight, State, lsn};
use crate::server::Login;
use crate::sign_in::sign_in;

/// How often it is looked whether servers came or went.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The database that is asked for where the config names none: every cluster has it.
const DATABASE: &str = "postgres";

const QUESTION: &[u8] = b"SELECT it.r, CASE WHEN it.r THEN pg_catalog.pg_last_wal_replay_lsn() \
    ELSE pg_catalog.pg_current_wal_insert_lsn() END, CASE WHEN it.r THEN NULL ELSE \
    pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END, \
    system.system_identifier, pg_catalog.pg_postmaster_start_time() \
    FROM (SELECT pg_catalog.pg_is_in_recovery() AS r) AS it, pg_catalog.pg_control_system() AS system";

impl Cluster {
    /// Asks the servers of `upstream` what they are, over and over. Belongs on the control plane's runtime;
    /// dropping it ends all it does, and then every server is fit for everything again.
    pub async fn watch(self: Arc<Self>, upstream: Arc<Upstream>) {
        let (mut tasks, mut known) = (JoinSet::new(), HashMap::<u64, AbortHandle>::new());
        let _end = End(upstream.clone());
        loop {
            self.begin(&upstream);
            let endpoints = upstream.endpoints();
            known.retain(|key, task| {
                let stays = !task.is_finished() && endpoints.iter().any(|endpoint| endpoint.key() == *key);
                if !stays {
                    task.abort();
                }
                stays
            });
            for endpoint in endpoints {
                if !known.contains_key(&endpoint.key()) {
                    let key = endpoint.key();
                    known.insert(key, tasks.spawn(follow(self.clone(), upstream.clone(), endpoint)));
                }
            }
            while tasks.try_join_next().is_some() {}
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Nobody asks any more, so nobody's role counts.
struct End(Arc<Upstream>);

impl Drop for End {
    fn drop(&mut self) {
        for endpoint in self.0.endpoints() {
            self.0.set_fit(&endpoint, Fit::ALL);
            endpoint.say(Default::default());
        }
    }
}

/// Asks one server for ever.
async fn follow(cluster: Arc<Cluster>, upstream: Arc<Upstream>, endpoint: Arc<Endpoint>) {
    let mut open = None;
    loop {
        let (watching, began) = (cluster.watching(), Clock::now());
        let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut).to_string());
        let asked = timeout(watching.within, sight(&mut open, &watching, &endpoint)).await;
        let seen = asked.unwrap_or_else(late);
        if seen.is_err() {
            open = None;
        }
        let is_lost = seen.is_err();
        cluster.saw(&upstream, &endpoint, began, seen);
        if is_lost {
            cluster.suspect();
            // Who is asked again at once has had no time to change.
            sleep(Duration::from_millis(50)).await;
        }
        cluster.until_next().await;
    }
}

/// Asks, over the connection that is open, or a new one.
async fn sight(open: &mut Option<Line>, watching: &Watching, endpoint: &Endpoint) -> Result<Sight, String> {
    let line = match open {
        Some(open) => open,
        None => open.insert(connect(watching, endpoint).await?),
    };
    let row = answer(line).await?;
    let column = |at: usize| row.get(at)?.as_deref();
    let seen = || {
        let text = |at: usize| std::str::from_utf8(column(at)?).ok();
        let place = lsn(column(1)?)?;
        let state = match column(0)? {
            b"t" => State::Replica { replayed: place },
            _ => State::Primary { timeline: u32::from_str_radix(text(2)?, 16).ok()?, end: place },
        };
        let origin = Origin { system: stable_key(text(3)?), started: stable_key(text(4)?) };
        Some(Sight { state, origin })
    };
    seen().ok_or_else(|| "the server's answer is none".into())
}

async fn connect(watching: &Watching, endpoint: &Endpoint) -> Result<Line, String> {
    let told = |error: io::Error| error.to_string();
    let addresses: &[EndpointAddr] = endpoint.addresses();
    let (_, io) = dial_first(addresses, &endpoint.dial_options()).await.map_err(told)?;
    let user = watching.login.user.as_deref().unwrap_or(DATABASE);
    let login = Login::of(&watching.login, DATABASE, user, &Credential::None);
    let said = |error: LogInError| error.to_string();
    let signed_in = sign_in(io, &endpoint.host(), login.tls.as_ref(), &login.log_in()).await;
    signed_in.map(|(line, _)| line).map_err(said)
}

/// The longest message of an answer.
const MESSAGE_MAX: usize = 64 * 1024;

/// Asks, and waits until the server is ready again: the row that it answers.
async fn answer(line: &mut Line) -> Result<Row, String> {
    let mut out = Vec::with_capacity(QUESTION.len() + 6);
    push_query(&mut out, QUESTION);
    line.write(&out).await.map_err(|error| error.to_string())?;
    let mut answer = Err("the server's answer is none".to_owned());
    loop {
        let (kind, body) = line.message(MESSAGE_MAX).await.map_err(|error| error.to_string())?;
        match kind {
            kind::DATA_ROW => answer = row(&body).ok_or_else(|| "a row that is none".into()),
            kind::ERROR_RESPONSE => answer = Err(said(&body)),
            kind::READY_FOR_QUERY => return answer,
            _ => {}
        }
    }
}
