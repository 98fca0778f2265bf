//! The interface that a route's requests must keep to.

use std::sync::Arc;

use tieline_base::{Fault, Reason, Stage, Whose};
use tieline_openapi::{Api, Inspected, Part, Refusal};
use tieline_registry::Tally;

use super::hold::hold;
use super::room::Room;
use crate::Http;
use crate::buffer::Buffer;
use crate::client::Client;
use crate::plan::{self, Plan};
use crate::story::Story;

/// An interface, and what becomes of requests that do not keep to it.
#[derive(Clone, Debug)]
pub struct Interface {
    /// The document.
    pub api: Arc<Api>,
    /// What becomes of them.
    pub mode: Mode,
    /// Counts them, by the part of the request that is wrong, in the order of [`Part::ALL`].
    pub counts: [Arc<Tally>; Part::ALL.len()],
    /// Where bodies are held while they are checked.
    pub room: Room,
}

/// What becomes of requests that do not keep to an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// They are refused.
    Enforce,
    /// They pass, and are told of.
    Report,
}

impl Interface {
    pub(super) async fn obey(
        &self,
        inspected: Inspected,
        client: &mut Client,
        input: &mut Buffer,
        story: &mut Story,
        plan: &mut Plan,
        http: &Http,
    ) -> Result<(), Fault> {
        if let Some(refusal) = inspected.refusal {
            self.judge(refusal, story)?;
        }
        let Some(rule) = inspected.body else { return Ok(()) };
        let most = http.settings.validated_body.min(http.settings.body.unwrap_or(u64::MAX));
        let held = hold(client, input, plan, story, http, most, &self.room).await?;
        let fits = held.is_whole() && held.data.len() as u64 <= most;
        let verdict = if fits { rule.check(&held.data) } else { Ok(()) };
        plan.held = Some(Box::new(held));
        match verdict {
            Err(error) => self.judge(error.into(), story),
            Ok(()) if fits => Ok(()),
            Ok(()) if self.mode == Mode::Enforce => Err(plan::too_large()),
            Ok(()) => {
                // Who only watches refuses nothing for its size.
                story.notes.push("the body is too large to be held against the interface".into());
                Ok(())
            }
        }
    }

    fn judge(&self, refusal: Refusal, story: &mut Story) -> Result<(), Fault> {
        let part = Part::ALL.iter().position(|part| *part == refusal.part()).unwrap_or_default();
        self.counts[part].add();
        if self.mode == Mode::Report {
            story.notes.push(format!("passed, but {refusal}").into());
            return Ok(());
        }
        Err(Fault::new(Stage::Authorize, Whose::Client, Reason::RefusedApi).because(refusal))
    }
}
