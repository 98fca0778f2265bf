//! The wait for a trunk: somebody dials, the others wait for it rather than dial too.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Clock, Moment};
use tieline_transport::Io;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::line::{Kept, Next};
use super::{Driver, Trunk, Trunking, drive, with_line};
use crate::endpoint::Endpoint;
use crate::idle::Making;
use crate::leasing::dial_any;
use crate::settings::Settings;
use crate::state::EndpointId;

/// Why there is no room on any trunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NoRoom {
    /// Nobody made room in time.
    #[error("every connection carries as much as the endpoint allows")]
    InTime,
    /// Too many wait already.
    #[error("too many wait for room on the connections to the endpoint")]
    InLine,
}

impl From<NoRoom> for io::Error {
    fn from(none: NoRoom) -> Self {
        io::Error::other(none)
    }
}

impl NoRoom {
    /// Whether that is what `error` says.
    pub(crate) fn of(error: &io::Error) -> Option<NoRoom> {
        error.get_ref()?.downcast_ref().copied()
    }
}

/// What a dial brought.
pub(crate) enum Reached {
    /// A connection for one lease.
    Alone(Io),
    /// One for many.
    Trunk(Arc<dyn Trunk>, Driver),
}

/// A conversation of a trunk to `endpoint`, dialed within `share` if need be; or a connection alone, if that
/// is what the endpoint agrees to.
pub(crate) async fn join(
    endpoint: &Arc<Endpoint>,
    settings: &Settings,
    trunking: Trunking,
    share: Duration,
) -> io::Result<(Io, Making)> {
    let (id, began) = (endpoint.id, Clock::now());
    let (failures, mut in_turn) = (with_line(id, |line| line.failures), false);
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {share:.1?}"));
    loop {
        if endpoint.has_no_trunks() {
            return lead(endpoint, settings, trunking, share).await;
        }
        let now = Clock::now();
        let (next, changed) = with_line(id, |line| {
            let next = line.next(settings, failures, in_turn, now);
            (next, Arc::clone(&line.changed))
        });
        let waited = now.since(began);
        let (patience, late): (_, Option<io::Error>) = match next {
            Next::Take(io, making) => return Ok((io, making)),
            Next::Fail(error) => return Err(error),
            Next::Dial => return lead(endpoint, settings, trunking, share).await,
            Next::Follow => (share.saturating_sub(waited), Some(late())),
            Next::Crowd => (settings.acquire.saturating_sub(waited), Some(NoRoom::InTime.into())),
            Next::Prove(left) => (left, None),
        };
        in_turn = matches!(next, Next::Crowd);
        let waiting = Waiting::begin(id, &next);
        let woken = timeout(patience, changed.notified()).await;
        drop(waiting);
        if let (Err(_), Some(late)) = (woken, late) {
            return Err(late);
        }
    }
}

/// Dials for itself and for all who wait.
async fn lead(
    endpoint: &Arc<Endpoint>,
    settings: &Settings,
    trunking: Trunking,
    share: Duration,
) -> io::Result<(Io, Making)> {
    let leading = Leading::begin(endpoint.id);
    let reached = timeout(share, reach(endpoint, settings, trunking, leading.changed.clone())).await;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {share:.1?}"));
    match reached.map_err(late).and_then(|reached| reached) {
        Ok(Reached::Alone(io)) => {
            endpoint.set_no_trunks(true);
            Ok((io, Making { born: Clock::now(), tls: settings.tls.clone(), kept: None }))
        }
        Ok(Reached::Trunk(trunk, driver)) => {
            endpoint.set_no_trunks(false);
            drive(driver);
            let now = Clock::now();
            let first = trunk.open().ok_or_else(|| closed_at_once(&*trunk))?;
            let making = Making { born: now, tls: settings.tls.clone(), kept: None };
            let kept = Kept {
                trunk,
                endpoint: Arc::clone(endpoint),
                making: making.clone(),
                idle: settings.pool.idle,
                aged_at: aged_at(settings.pool.max_age, now),
                used: now,
                asked: None,
            };
            endpoint.has_trunk(&kept.trunk);
            with_line(endpoint.id, |line| line.trunks.push(kept));
            Ok((first, making))
        }
        Err(error) => {
            with_line(endpoint.id, |line| {
                line.failures += 1;
                line.failure = Some((error.kind(), error.to_string()));
            });
            Err(error)
        }
    }
}

fn closed_at_once(trunk: &dyn Trunk) -> io::Error {
    let text = if trunk.is_over() { "closed the connection at once" } else { "allows no streams" };
    io::Error::new(io::ErrorKind::ConnectionAborted, format!("the endpoint {text}"))
}

/// Connects, and makes what the endpoint agrees to of it. `changed` is the trunk's, see
/// [`Trunks::begin`](super::Trunks::begin).
pub(crate) async fn reach(
    endpoint: &Endpoint,
    settings: &Settings,
    Trunking { trunks, only }: Trunking,
    changed: Arc<Notify>,
) -> io::Result<Reached> {
    let offer = if only { vec![trunks.alpn()] } else { vec![trunks.alpn(), trunks.alone()] };
    let Settings { tls, dial, .. } = settings;
    let (io, agreed) = dial_any(endpoint, endpoint.addresses(), tls, Some(offer), dial).await?;
    let agrees = tls.is_none() || agreed == Some(trunks.alpn());
    match (agrees, only) {
        (true, _) => {
            let (trunk, driver) = trunks.begin(io, tls.is_some(), changed).await?;
            Ok(Reached::Trunk(trunk, driver))
        }
        (false, false) => Ok(Reached::Alone(io)),
        (false, true) => {
            let wanted = trunks.alpn();
            let error = format!(
                "the endpoint does not agree to \"{wanted}\" by TLS (ALPN), and nothing else is allowed"
            );
            Err(io::Error::new(io::ErrorKind::InvalidData, error))
        }
    }
}

/// Give or take a tenth, so that those that were dialed together do not end together.
fn aged_at(max_age: Option<Duration>, now: Moment) -> Moment {
    max_age.map_or(Moment(u64::MAX), |age| now.after(age.mul_f64(0.9 + 0.2 * fastrand::f64())))
}

/// Whoever dials. When it is done, or dropped, all who wait look again.
struct Leading {
    id: EndpointId,
    changed: Arc<Notify>,
}

impl Leading {
    fn begin(id: EndpointId) -> Leading {
        let changed = with_line(id, |line| {
            line.dialing += 1;
            Arc::clone(&line.changed)
        });
        Leading { id, changed }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        with_line(self.id, |line| line.dialing -= 1);
        self.changed.notify_waiters();
    }
}

/// Whoever waits, counted by what for.
struct Waiting(Option<(EndpointId, bool)>);

impl Waiting {
    fn begin(id: EndpointId, next: &Next) -> Waiting {
        let for_room = match next {
            Next::Follow => false,
            Next::Crowd => true,
            _ => return Waiting(None),
        };
        Waiting::count(id, for_room, 1);
        Waiting(Some((id, for_room)))
    }

    fn count(id: EndpointId, for_room: bool, change: isize) {
        with_line(id, |line| {
            let count = if for_room { &mut line.crowd } else { &mut line.followers };
            *count = count.saturating_add_signed(change);
        });
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((id, for_room)) = self.0 {
            Waiting::count(id, for_room, -1);
        }
    }
}
