//! Approvals at the server: who waits for one, who answers, and what ends when one ends.
//!
//! What is decided is decided in [`tieline_policy::approval`]; this keeps the one ledger of the process,
//! tells the log, wakes who waits and ends the streams that an approval no longer carries. Nothing of it is
//! written to disk: streams do not outlive the process, and neither does what they were allowed.

#![allow(clippy::disallowed_types)] // asked by every worker that opens a stream; never held over an await

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tieline_base::{Clock, Reason, Stage};
use tieline_policy::approval::{
    AnswerError, Answerer, ApprovalId, Full, Ledger, Request, State, Terms, Wish,
};
use tieline_registry::Record;
use tokio::sync::watch;

use crate::agents::Agents;
use crate::far_stream::Way;

/// The ledger, and who waits for it to change.
#[derive(Debug)]
pub(crate) struct Approvals {
    ledger: Mutex<Ledger>,
    changed: watch::Sender<()>,
}

impl Default for Approvals {
    fn default() -> Self {
        Self { ledger: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Approvals {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for `wish` by `terms`, or finds what was asked or approved before.
    pub(crate) fn ask(&self, wish: &Wish<'_>, terms: &Terms) -> Result<Request, Full> {
        let now = Clock::now();
        // An id is no secret: whoever answers proves that he may.
        let asked = self.lock().ask(wish, terms, || fastrand::u32(..), now).cloned()?;
        if asked.asked == now {
            let Request { id, person, service, why, terms, .. } = &asked;
            tracing::info!(request = %id, person, service, why, ask = terms.asks, "an approval is asked for");
        }
        Ok(asked)
    }

    /// How the request `id` stands; `None` if it is long over.
    pub(crate) fn look(&self, id: ApprovalId) -> Option<Request> {
        self.lock().look(id).cloned()
    }

    /// Whether the approval `id` holds by `terms`.
    pub(crate) fn holds(&self, id: ApprovalId, terms: &Terms) -> bool {
        self.lock().holds(id, terms, Clock::now())
    }

    /// Tells of every answer, and of every end.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl Agents {
    /// The requests that are `by`'s business, in order of time.
    pub fn requests(&self, by: &Answerer<'_>) -> Vec<Request> {
        self.approvals().lock().seen_by(by).cloned().collect()
    }

    /// Approves the request `id`, for `holds` or for as long as its route says.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn approve(
        &self,
        id: ApprovalId,
        by: &Answerer<'_>,
        holds: Option<Duration>,
        note: &str,
    ) -> Result<Request, AnswerError> {
        let now = Clock::now();
        let request = self.approvals().lock().approve(id, by, holds, note, now).cloned()?;
        let held = request.state.until().map_or(Duration::ZERO, |until| until.since(now));
        let (answer, Request { person, service, .. }) = (said(&request), &request);
        tracing::info!(request = %id, person, service, "{answer}, for {held:?}");
        self.approvals().changed.send_replace(());
        Ok(request)
    }

    /// Denies the request `id`, or takes its approval back: what was opened by it ends now.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn deny(&self, id: ApprovalId, by: &Answerer<'_>, note: &str) -> Result<Request, AnswerError> {
        let request = self.approvals().lock().deny(id, by, note, Clock::now()).cloned()?;
        let (answer, Request { person, service, .. }) = (said(&request), &request);
        tracing::info!(request = %id, person, service, "{answer}");
        if request.state == State::Revoked {
            self.visits().end_approved(id, Reason::Revoked, &answer);
        }
        self.approvals().changed.send_replace(());
        Ok(request)
    }

    /// Wakes those who wait for approvals: another config may ask for none, or somebody else.
    pub fn ask_again(&self) {
        self.approvals().changed.send_replace(());
    }

    /// Why the stream of `record`, which would take `way` now, may not go on for want of an approval; `None`
    /// if it may, or still waits for one.
    pub(crate) fn disapproves(&self, record: &Record, way: Option<&Way>) -> Option<String> {
        let terms = way?.approval.as_ref()?;
        let approval = match self.visits().approval_of(record) {
            Some(approval) => approval,
            // By the config before, nobody had to agree.
            None if matches!(record.stage(), Stage::Acquire | Stage::Relay) => {
                return Some("somebody has to agree first".into());
            }
            None => return None,
        };
        let holds = self.approvals().holds(approval, terms);
        (!holds).then(|| format!("the approval {approval} holds no longer"))
    }

    /// Ends requests that nobody answered, and approvals that have had their time.
    pub(crate) fn end_approvals(&self) {
        let ended = self.approvals().lock().pass(Clock::now());
        if ended.is_empty() {
            return;
        }
        for request in &ended {
            let (text, Request { id, person, service, .. }) = (said(request), request);
            tracing::info!(request = %id, person, service, "{text}");
            if request.state == State::Over {
                self.visits().end_approved(*id, Reason::ApprovalEnded, &text);
            }
        }
        self.approvals().changed.send_replace(());
    }
}

/// What whoever asked is told while he waits.
pub(crate) fn asks(request: &Request) -> String {
    let Request { id, person, service, terms, .. } = request;
    let whom = match &*terms.asks {
        "" => "an operator".into(),
        one if !one.contains(',') => one.to_owned(),
        several => format!("one of: {several}"),
    };
    format!("request {id} by {person} for {service} (ask {whom})")
}

/// What became of a request, for logs, stories and who asked.
pub(crate) fn said(request: &Request) -> String {
    let id = request.id;
    let by = request.answer.as_ref();
    let who = by.map_or("", |answer| &*answer.by);
    let note = by.filter(|answer| !answer.note.is_empty());
    let note = note.map_or_else(String::new, |answer| format!(": {}", answer.note));
    match request.state {
        State::Waits(_) => format!("request {id} waits for approval"),
        State::Approved(_) => format!("request {id} was approved by {who}{note}"),
        State::Denied => format!("request {id} was denied by {who}{note}"),
        State::Unanswered => format!("nobody answered request {id} within {:?}", request.terms.wait),
        State::Over => format!("the approval {id} by {who} has had its time"),
        State::Revoked => format!("the approval {id} was taken back by {who}{note}"),
    }
}
