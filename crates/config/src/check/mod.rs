//! What only the whole file can tell: whether its parts fit together, and what they risk.

mod agents;
mod clashes;
mod identities;
mod loops;
mod postgres;
mod protocols;
mod references;
mod risks;

pub(crate) use agents::agents;
pub(crate) use clashes::clashes;
pub(crate) use identities::identities;
pub(crate) use loops::loops;
pub(crate) use postgres::postgres;
pub(crate) use protocols::protocols;
pub(crate) use references::references;
pub(crate) use risks::risks;
