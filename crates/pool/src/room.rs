//! Room under the caps: how a place that was granted becomes a connection where those at rest count too.

use std::sync::Arc;

use tieline_transport::Io;

use crate::endpoint::Endpoint;
use crate::gate::Ledger;
use crate::idle::{Making, Parked, Reuse, Wanted};
use crate::state::Dialing;
use crate::upstream::Upstream;

/// What comes of a look at the connections at rest.
enum Found {
    /// One of this worker's own.
    Mine(Io, Making),
    /// One of another worker, or one of our own that is not known to be alive.
    Other(Parked),
    /// None, and a new one may be made.
    None,
    /// One had to be closed to make room.
    Closed,
}

impl Upstream {
    /// A connection at rest for whoever has claimed `wanted.endpoint`; if there is none, a new one may be
    /// made when this returns, and the caps hold.
    pub(crate) fn rested(&self, wanted: &Wanted<'_>) -> Option<(Io, Making)> {
        if !self.gate().is_governed()
            && let Ok(taken) = wanted.endpoint.shelf.take_free(wanted)
        {
            return taken;
        }
        loop {
            let mut useless = Vec::new();
            let found = self.gate().with(|ledger| self.find(ledger, wanted, &mut useless));
            self.close_useless(wanted.endpoint, useless);
            match found {
                Found::Mine(io, making) => return Some((io, making)),
                Found::Other(parked) => {
                    if let Some(moved) = move_here(parked, wanted) {
                        return Some(moved);
                    }
                }
                Found::None => return None,
                Found::Closed => {}
            }
        }
    }

    fn find(&self, ledger: &mut Ledger, wanted: &Wanted<'_>, useless: &mut Vec<Parked>) -> Found {
        let endpoint = wanted.endpoint;
        if let Some((io, making)) = endpoint.shelf.take_counted(wanted, useless) {
            ledger.closed_at_rest(endpoint, 1);
            return Found::Mine(io, making);
        }
        if !useless.is_empty() {
            // There may be room when they are closed.
            return Found::Closed;
        }
        let has_room = ledger.state.may_dial(endpoint.id) == Dialing::Now;
        if has_room && wanted.reuse != Reuse::Anywhere {
            return Found::None;
        }
        if let Some(mut parked) = endpoint.shelf.take_any(wanted.login) {
            let fits = wanted.fits(&mut parked);
            if fits {
                // It counts as this lease's from now on.
                ledger.closed_at_rest(endpoint, 1);
                return Found::Other(parked);
            }
            drop(parked);
            ledger.closed_at_rest(endpoint, 1);
            return Found::Closed;
        }
        if !has_room && self.close_one_elsewhere(ledger) { Found::Closed } else { Found::None }
    }

    /// Closes a connection at rest of any endpoint, of the one that has most.
    fn close_one_elsewhere(&self, ledger: &mut Ledger) -> bool {
        let roster = self.roster();
        let most = roster.endpoints.iter().max_by_key(|endpoint| endpoint.shelf.len());
        let Some((endpoint, parked)) = most.and_then(|most| Some((most, most.shelf.take_any(ANYBODY)?)))
        else {
            return false;
        };
        drop(parked);
        ledger.closed_at_rest(endpoint, 1);
        true
    }
}

impl Upstream {
    /// Closes what was found to be of no use under the gate's lock, which is not held for as long as that
    /// takes; only then do others get the places.
    pub(crate) fn close_useless(&self, endpoint: &Endpoint, useless: Vec<Parked>) {
        let count = useless.len() as u32;
        if count > 0 {
            drop(useless);
            self.gate().with(|ledger| ledger.closed_at_rest(endpoint, count));
        }
    }
}

/// Nobody's login: what is closed may be any.
const ANYBODY: u64 = u64::MAX;

/// `None` if it is of no use: it is closed then.
fn move_here(parked: Parked, wanted: &Wanted<'_>) -> Option<(Io, Making)> {
    // Its own worker may not have heard of its end yet; of what lies within TLS only that one knows.
    let silent = matches!(parked.io, Io::Tls(_)) || parked.io.is_silent();
    if !silent {
        return None;
    }
    match parked.io.moved_here() {
        Ok(io) => Some((io, parked.making)),
        Err(error) => {
            tracing::debug!(endpoint = wanted.endpoint.label(), %error, "a connection cannot change workers");
            None
        }
    }
}

/// Closes what rests of endpoints that are gone. Under the gate's lock.
pub(crate) fn clear(ledger: &mut Ledger, gone: &[Arc<Endpoint>]) {
    for endpoint in gone {
        let closed = endpoint.shelf.clear();
        ledger.closed_at_rest(endpoint, closed);
    }
}
