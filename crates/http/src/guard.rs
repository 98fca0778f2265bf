//! What stands between a route and its upstream: limits in number and time, and the interface that a request
//! must keep to. Asked when the head was read, obeyed once the client was found to be allowed.

mod gcra;
mod hold;
mod interface;
mod limits;
mod quota;
mod refused;
mod room;

use std::sync::Arc;

use tieline_base::{ClientAddr, Fault, Moment};
use tieline_openapi::Inspected;
use tieline_wire::http1::{Request, RequestBody};

use crate::Http;
use crate::buffer::Buffer;
use crate::client::Client;
use crate::plan::Plan;
use crate::site::{Ask, Target};
use crate::story::Story;

pub(crate) use hold::Held;
pub use interface::{Interface, Mode};
pub use limits::{Concurrent, Per, RateLimit};
pub(crate) use limits::{Refused, Slot};
pub(crate) use refused::{fields, is_refusal, status, violations};
pub(crate) use room::Part as HeldRoom;
pub use room::Room;

/// The guards of a route; most have none.
#[derive(Debug)]
pub struct Guards {
    /// How often its requests may come, those of the listener among them.
    pub rates: Vec<Arc<RateLimit>>,
    /// How many of them may be under way.
    pub concurrent: Option<Concurrent>,
    /// What they must keep to.
    pub interface: Option<Interface>,
}

/// What the guards of a route say to the head of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It comes too early.
    TooEarly(Refused),
    /// The interface has this to say.
    Inspected(Inspected),
}

impl Verdict {
    /// Whether the request goes nowhere: nothing needs to be written for it.
    pub(crate) fn refuses(&self) -> bool {
        matches!(self, Verdict::TooEarly(_))
    }
}

/// Asks the guards of `target` about a request of `client`, who is let in; `None`: they have nothing to say.
/// What any answer tells of rates goes to the story.
pub(crate) fn ask(
    target: &Target,
    ask: &Ask<'_>,
    client: ClientAddr,
    request: &Request<'_, '_>,
    now: Moment,
    story: &mut Story,
) -> Option<Box<Verdict>> {
    let guards = target.guards.as_ref()?;
    if !guards.rates.is_empty() {
        let mut quotas = quota::Quotas::default();
        let asked = limits::ask(&guards.rates, ask, client, now, &mut quotas);
        story.quota = quotas.lines();
        if let Err(refused) = asked {
            return Some(Box::new(Verdict::TooEarly(refused)));
        }
    }
    let interface = guards.interface.as_ref()?;
    let Ask { method, query, header, .. } = *ask;
    // As it is forwarded.
    let path = request.target.path;
    let has_body = !matches!(request.body, RequestBody::None | RequestBody::Length(0));
    let inspected = interface.api.inspect(&tieline_openapi::Ask { method, path, query, header, has_body });
    Some(Box::new(Verdict::Inspected(inspected)))
}

/// Obeys what the guards said of the head: what the interface of `target` has to say is still to be obeyed.
///
/// # Errors
/// The request may not pass.
pub(crate) fn admit(plan: &mut Plan, target: &Target) -> Result<Option<Inspected>, Fault> {
    let Some(guards) = &target.guards else { return Ok(None) };
    let inspected = match plan.verdict.take().map(|verdict| *verdict) {
        None => None,
        Some(Verdict::TooEarly(refused)) => return Err(refused.fault()),
        Some(Verdict::Inspected(inspected)) => Some(inspected),
    };
    if let Some(concurrent) = &guards.concurrent {
        plan.slot = Some(concurrent.enter().map_err(Refused::fault)?);
    }
    Ok(inspected)
}

/// Obeys what the interface of `target` says. Where a body has to be looked at, it is part of `plan.head`
/// afterwards.
///
/// # Errors
/// The request may not pass.
pub(crate) async fn pass(
    client: &mut Client,
    input: &mut Buffer,
    story: &mut Story,
    plan: &mut Plan,
    target: &Target,
    inspected: Inspected,
    http: &Http,
) -> Result<(), Fault> {
    match target.guards.as_ref().and_then(|guards| guards.interface.as_ref()) {
        Some(interface) => interface.obey(inspected, client, input, story, plan, http).await,
        None => Ok(()),
    }
}
