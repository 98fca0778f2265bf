//! What stands between a route and its upstream: the interface that a request must keep to. Asked when the
//! head was read, obeyed once the client was found to be allowed.

mod hold;
mod interface;
mod refused;

use tieline_base::Fault;
use tieline_openapi::Inspected;

use crate::Http;
use crate::buffer::Buffer;
use crate::client::Client;
use crate::plan::Plan;
use crate::site::{Ask, Target};
use crate::story::Story;

pub(crate) use hold::Held;
pub use interface::{Interface, Mode};
pub(crate) use refused::{fields, is_refusal, status, violations};

/// What the guards of a route say to the head of a request.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    interface: Option<Inspected>,
}

/// Asks the guards of `target` about a request for the path `raw`, as it is forwarded.
pub(crate) fn ask(target: &Target, ask: &Ask<'_>, raw: &str, has_body: bool) -> Option<Box<Verdict>> {
    let interface = target.interface.as_ref()?;
    let ask = tieline_openapi::Ask {
        method: ask.method,
        path: raw,
        query: ask.query,
        header: ask.header,
        has_body,
    };
    Some(Box::new(Verdict { interface: Some(interface.api.inspect(&ask)) }))
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
    let Some(verdict) = plan.verdict.take() else { return Ok(()) };
    if let (Some(inspected), Some(interface)) = (verdict.interface, &target.interface) {
        interface.obey(inspected, client, input, story, plan, http).await?;
    }
    Ok(())
}
