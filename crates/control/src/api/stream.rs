//! `GET /api/v1/events`: what happens, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use tieline_base::Clock;
use tieline_conn::Phase;
use tieline_policy::AdminPermit;
use tieline_registry::Row;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::watch;

use crate::events::Event;
use crate::plane::Plane;

/// Begins with the phase, then tells what happens. Ends when the server has stopped.
pub(super) async fn events(
    permit: AdminPermit,
    State(plane): State<Plane>,
) -> Sse<impl Stream<Item = Result<Sent, Infallible>>> {
    let mut phases = plane.server(&permit).phases();
    phases.mark_changed();
    let listening = Listening { events: plane.parts(&permit).events.listen(), phases, over: false };
    let told = stream::unfold(listening, |mut listening| async {
        let sent = listening.next().await?;
        Some((Ok(sent), listening))
    });
    Sse::new(told).keep_alive(KeepAlive::new().interval(QUIET_MAX))
}

/// Proxies on the way close what is silent for a minute.
const QUIET_MAX: Duration = Duration::from_secs(15);

struct Listening {
    events: Receiver<Event>,
    phases: watch::Receiver<Phase>,
    over: bool,
}

impl Listening {
    async fn next(&mut self) -> Option<Sent> {
        if self.over {
            return None;
        }
        // Both arms may be dropped: neither takes anything before it is done.
        tokio::select! {
            biased;
            event = self.events.recv() => match event {
                Ok(event) => Some(sent(&event)),
                Err(RecvError::Lagged(events)) => Some(json("lost", &Lost { events })),
                Err(RecvError::Closed) => None,
            },
            changed = self.phases.changed() => {
                changed.ok()?;
                let phase = *self.phases.borrow_and_update();
                self.over = phase == Phase::Stopped;
                Some(json("phase", &PhaseNow { phase: phase.as_str() }))
            }
        }
    }
}

#[derive(Serialize)]
struct Lost {
    events: u64,
}

#[derive(Serialize)]
struct PhaseNow {
    phase: &'static str,
}

#[derive(Serialize)]
struct ReloadRefused<'e> {
    errors: &'e [String],
}

#[derive(Serialize)]
struct EndpointChange<'e> {
    upstream: &'e str,
    endpoint: &'e str,
    was: Option<&'static str>,
    is: Option<&'static str>,
}

#[derive(Serialize)]
struct EndedRow<'e> {
    #[serde(flatten)]
    row: Row,
    detail: Option<&'e str>,
}

fn sent(event: &Event) -> Sent {
    match event {
        Event::Ended(record) => {
            let detail = record.ended().and_then(|ended| ended.detail.as_deref());
            json("ended", &EndedRow { row: Row::of(record, Clock::now()), detail })
        }
        Event::Reload(Ok(reloaded)) => json("reload", reloaded),
        Event::Reload(Err(errors)) => json("reload-refused", &ReloadRefused { errors }),
        Event::Endpoint { upstream, endpoint, was, is } => {
            let (was, is) = (was.map(|was| was.as_str()), is.map(|is| is.as_str()));
            json("endpoint", &EndpointChange { upstream, endpoint, was, is })
        }
    }
}

fn json(name: &str, content: &impl Serialize) -> Sent {
    // All of it has a JSON form; an event without content is better than a stream that breaks.
    Sent::default().event(name).json_data(content).unwrap_or_else(|_| Sent::default().event(name))
}
