//! What only the whole file can tell: whether its parts fit together, and what they risk.

mod clashes;
mod identities;
mod loops;
mod protocols;
mod references;
mod risks;

pub(crate) use clashes::clashes;
pub(crate) use identities::identities;
pub(crate) use loops::loops;
pub(crate) use protocols::protocols;
pub(crate) use references::references;
pub(crate) use risks::risks;
