//! Floor 0: the words that every other floor shares.
//!
//! Owns ids, addresses, units, [`text`], [`Secret`], [`Reason`], [`Fault`] and the [`Clock`]. Refuses to know
//! sockets, files, config and every protocol. Start with [`Reason`]: it is the vocabulary in which Tieline
//! explains itself.

mod address;
mod clock;
mod fault;
mod identity;
mod ids;
mod labels;
mod priority;
mod reason;
mod secret;
mod stage;
pub mod text;
mod units;
mod verifier;

pub use address::{
    Address, AddressError, ClientAddr, EndpointAddr, FarGroup, FarService, is_far_name, is_host_name,
};
pub use clock::{Clock, Moment};
pub use fault::{Fault, Whose};
pub use identity::{Identity, Proved};
pub use ids::{ConnectionId, Generation, WorkerId};
pub use labels::{LABELS_MAX, LabelError, Labels};
pub use priority::Priority;
pub use reason::{Reason, UnknownReason};
pub use secret::Secret;
pub use stage::{Stage, UnknownStage};
pub use units::{ByteRate, Bytes, Percent, Rate, UnitError, format_duration, parse_duration};
pub use verifier::{SCRAM_ITERATIONS_MAX, SCRAM_SALT_MAX, ScramVerifier, Verifier, VerifierError};
