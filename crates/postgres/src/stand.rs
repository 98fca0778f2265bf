//! A place in line for a client that is aside already: it may be told of its wait, and keeps its place.

use std::future::poll_fn;

use tieline_base::{Clock, Fault, Moment, Reason, Stage, Whose};
use tieline_policy::Permit;
use tieline_pool::{Ask, InLine, Lease};
use tokio::time::timeout;

use crate::aside::denied;
use crate::fair;
use crate::in_line::Waited;
use crate::refusal::Refusal;
use crate::talk::Talk;

/// What came of standing in line.
// The larger one is the usual one.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Stood {
    /// A server, or a connection to one.
    Lent(Lease),
    /// A place, at which a connection is to be made.
    Granted(Box<Waited>),
    /// Another server is wanted by now, and that is another line.
    Changed,
    /// It is something else that has to be waited for.
    Nowhere,
}

/// Stands in line since `began`, where that is all there is to wait for, and where the client is to be told
/// if it takes long. May be dropped: the place is given back.
pub(crate) async fn stand(
    talk: &mut Talk,
    permit: &Permit,
    ask: &Ask,
    began: Moment,
    told: &mut bool,
) -> Result<Stood, Refusal> {
    let Some(mut within) = talk.untold_for(began, *told) else { return Ok(Stood::Nowhere) };
    let (target, need) = (talk.way.target.clone(), talk.need());
    let route = &target.route;
    let place = match talk.connection.acquire_or_line_up(route, permit, ask, Clock::now()) {
        InLine::Lent(lease) => return Ok(Stood::Lent(lease)),
        InLine::Dials(granted) => {
            return Ok(Stood::Granted(Box::new(Waited { began, told: *told, granted })));
        }
        InLine::Nowhere => return Ok(Stood::Nowhere),
        InLine::Waits(place) => place,
    };
    loop {
        // All may be dropped.
        let granted = tokio::select! {
            biased;
            () = talk.key.cancelled() => return Err(Refusal::Cancelled),
            granted = timeout(within, poll_fn(|cx| place.poll(cx))) => granted,
            said = denied(&talk.way, began) => return Err(Refusal::Said(said)),
            () = need.changes_from(ask.purpose, &target) => return Ok(Stood::Changed),
            () = talk.io.broken() => {
                return Err(Fault::new(Stage::Acquire, Whose::Client, Reason::ClientReset).into());
            }
        };
        match granted {
            Ok(granted) => break granted?,
            Err(_) if *told => return Err(place.in_vain().into()),
            Err(_) => {}
        }
        *told = true;
        let why = place.standing().as_ref().and_then(fair::waits);
        talk.tell_now(&why.unwrap_or_else(|| "the query waits".into())).await;
        within = began.after(target.acquire).since(Clock::now());
    }
    let taken = talk.connection.take_granted(route, place, ask, (began, Clock::now()));
    Ok(match taken {
        Ok(lease) => Stood::Lent(lease),
        Err(Some(granted)) => Stood::Granted(Box::new(Waited { began, told: *told, granted })),
        Err(None) => Stood::Nowhere,
    })
}
