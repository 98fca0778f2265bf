//! What stands between a route and its upstream: limits in number and time, and the interface that a request
//! must keep to. Asked when the head was read, obeyed once the client was found to be allowed.

mod gcra;
mod hold;
mod interface;
mod limits;
mod refused;

use std::sync::Arc;

use tieline_base::{ClientAddr, Fault};
use tieline_openapi::Inspected;

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
    /// It is as this says.
    Inspected(Option<Inspected>),
}

/// Asks the guards of `target` about a request of `client` for the path `raw`, as it is forwarded.
pub(crate) fn ask(
    target: &Target,
    ask: &Ask<'_>,
    client: ClientAddr,
    raw: &str,
    has_body: bool,
) -> Option<Box<Verdict>> {
    let guards = target.guards.as_ref()?;
    if !guards.rates.is_empty()
        && let Some(refused) = limits::ask(&guards.rates, ask, client)
    {
        return Some(Box::new(Verdict::TooEarly(refused)));
    }
    let Ask { method, query, header, .. } = *ask;
    let ask = tieline_openapi::Ask { method, path: raw, query, header, has_body };
    let inspected = guards.interface.as_ref().map(|interface| interface.api.inspect(&ask));
    Some(Box::new(Verdict::Inspected(inspected)))
}

/// Obeys what the guards said. Where a body has to be looked at, it is part of `plan.head` afterwards.
///
/// # Errors
/// The request may not pass.
pub(crate) async fn pass(
    client: &mut Client,
    input: &mut Buffer,
    story: &mut Story,
    plan: &mut Plan,
    target: &Target,
    http: &Http,
) -> Result<(), Fault> {
    let (Some(verdict), Some(guards)) = (plan.verdict.take(), &target.guards) else { return Ok(()) };
    let inspected = match *verdict {
        Verdict::TooEarly(refused) => return Err(refused.fault()),
        Verdict::Inspected(inspected) => inspected,
    };
    if let Some(concurrent) = &guards.concurrent {
        plan.slot = Some(concurrent.enter().map_err(Refused::fault)?);
    }
    if let (Some(inspected), Some(interface)) = (inspected, &guards.interface) {
        interface.obey(inspected, client, input, story, plan, http).await?;
    }
    Ok(())
}
