//! Where a connection stands on the road.

use std::fmt;
use std::str::FromStr;

/// One station of the road that every connection walks, in its order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Stage {
    /// Taken from the kernel and listed; nothing read yet.
    Accept,
    /// Counted against the limits.
    Admit,
    /// Its PROXY header and first bytes are being read.
    Settle,
    /// Who it is, is being proved.
    Identify,
    /// Its route is being found.
    Route,
    /// Policy is deciding.
    Authorize,
    /// It waits for an upstream connection, or for one to be made.
    Acquire,
    /// Bytes flow.
    Relay,
    /// It has ended.
    Release,
}

impl Stage {
    /// Every stage, in the order of the road.
    pub const ALL: [Stage; 9] = [
        Stage::Accept,
        Stage::Admit,
        Stage::Settle,
        Stage::Identify,
        Stage::Route,
        Stage::Authorize,
        Stage::Acquire,
        Stage::Relay,
        Stage::Release,
    ];

    /// The word for it in the CLI, the API, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Accept => "accept",
            Stage::Admit => "admit",
            Stage::Settle => "settle",
            Stage::Identify => "identify",
            Stage::Route => "route",
            Stage::Authorize => "authorize",
            Stage::Acquire => "acquire",
            Stage::Relay => "relay",
            Stage::Release => "release",
        }
    }

    /// The stage that `code` (its place in [`Stage::ALL`]) stands for.
    pub fn from_code(code: u8) -> Option<Stage> {
        Stage::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no stage.
#[derive(Debug, thiserror::Error)]
#[error(
    "\"{0}\" is no stage; stages are accept, admit, settle, identify, route, authorize, acquire, relay, \
     release"
)]
pub struct UnknownStage(String);

impl FromStr for Stage {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, UnknownStage> {
        Stage::ALL.into_iter().find(|stage| stage.as_str() == text).ok_or_else(|| UnknownStage(text.into()))
    }
}
