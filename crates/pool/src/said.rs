//! What a protocol finds an endpoint to be, and what leases may have it for.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::purpose::{Fit, Purpose};

/// What the protocol says of an endpoint that it knows more of.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Said {
    /// What it is to the others; `None` if nothing is known or meant.
    pub role: Option<&'static str>,
    /// How far it is behind the others; `None` if that is not known, or means nothing.
    pub lag: Option<Duration>,
}

impl Endpoint {
    /// Whether a lease for `purpose` may have it.
    pub fn is_fit_for(&self, purpose: Purpose) -> bool {
        self.fit().has(purpose)
    }

    /// What leases may have it for.
    pub fn fit(&self) -> Fit {
        Fit::from_bits(self.fit.load(Ordering::Relaxed))
    }

    /// Returns what it was fit for before.
    pub(crate) fn become_fit_for(&self, fit: Fit) -> Fit {
        Fit::from_bits(self.fit.swap(fit.bits(), Ordering::Relaxed))
    }

    /// Notes what its protocol says of it.
    pub fn say(&self, said: Said) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = said;
    }

    pub(crate) fn said(&self) -> Said {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
