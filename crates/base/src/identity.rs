//! Who is at the other end.

use std::fmt;
use std::sync::Arc;

/// Who was proved to be at the other end. Position (a source address, loopback, a tunnel) proves nobody.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Identity {
    /// Nobody: only a source address is known.
    #[default]
    Anonymous,
    /// Somebody. Shared, because the row, the connection and its exchanges all point to it.
    Proved(Arc<Proved>),
}

/// Somebody, and the proof.
#[derive(Clone, PartialEq, Eq)]
pub struct Proved {
    /// The one name that policy, log and filters go by; without control characters.
    pub name: Box<str>,
    /// How it was proved, for people.
    pub by: Box<str>,
    /// The groups that the proof says it belongs to.
    pub groups: Vec<Box<str>>,
    /// The certificates that prove it in DER, the holder's own first, so that they can be judged again; none
    /// where something else is the proof.
    pub certificates: Vec<Box<[u8]>>,
}

impl Identity {
    /// The name that was proved.
    pub fn name(&self) -> Option<&str> {
        self.proved().map(|proved| &*proved.name)
    }

    /// Who was proved, and how.
    pub fn proved(&self) -> Option<&Proved> {
        match self {
            Identity::Anonymous => None,
            Identity::Proved(proved) => Some(proved),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("anonymous"))
    }
}

impl fmt::Debug for Proved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proved").field("name", &self.name).field("by", &self.by).finish_non_exhaustive()
    }
}
