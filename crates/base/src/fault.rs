//! The one error of the data path.

use std::error::Error;
use std::fmt;

use crate::{Reason, Stage};

/// Whose fault it was: decides what is logged, counted against an endpoint, and tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The client's: its bytes, its silence, its rights.
    Client,
    /// The upstream's: it refused, was slow, broke.
    Upstream,
    /// Ours: a limit, a drain, a defect.
    Us,
}

/// What ended a connection before its natural end. `Display` is fit for a client: it never shows the source.
#[derive(Debug)]
pub struct Fault {
    /// Where on the road it happened.
    pub stage: Stage,
    /// Whose fault it was.
    pub whose: Whose,
    /// Whether another endpoint may be tried: nothing of the client's has been sent yet.
    pub retry: bool,
    /// The word for it.
    pub reason: Reason,
    /// What lies beneath, for the server's own log and `show`.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A fault of `whose` at `stage`, not to be retried.
    pub fn new(stage: Stage, whose: Whose, reason: Reason) -> Self {
        Self { stage, whose, retry: false, reason, source: None }
    }

    /// The same fault, with what lies beneath it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same fault, marked as one after which another endpoint may be tried.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retry = true;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} while in {}", self.reason, self.stage)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
