//! Resumable streams: many conversations over one link, which outlives the carriers it travels on.
//!
//! A *link* joins two processes. It goes over one *carrier* at a time (a connection of QUIC, TLS or
//! WebSocket) and on over the next when that one breaks: not a byte is lost, doubled or reordered, and the
//! applications at both ends see a pause. Everything is said in absolute offsets; a side keeps what it sent
//! until the other confirms to hold it, and sends no more than it has credit for, so what is kept is bounded
//! by credit.
//!
//! Owns the frames, the [`Link`] with its streams, and the [`Key`] that a new carrier proves. Refuses to
//! know carriers, sockets, clocks and randomness: `(state, now, event) → actions`, so one seed repeats a run
//! exactly. Start with [`Link`]; [`Dialing`] finds the carriers.

mod dialing;
mod frame;
mod ids;
mod key;
mod link;
mod pulse;
mod schedule;
mod slabs;
mod stream;
mod varint;

pub use dialing::{ASK_MIN, Act, Dialing, HANDSHAKE_MAX, NetworkId, Now, Way};
pub use frame::{
    BODY_MAX, Counter, DATA_MAX, Dead, ENDPOINTS_MAX, Endpoints, Entry, Frame, FrameError, GoAway, Hello,
    Kill, Limits, Mac, OFFERS_MAX, OfferKind, Offered, Offers, Open, Party, Refusal, Refused, Resume,
    Resumed, STATS_MAX, Stats, TEXT_MAX, TTLS_MAX, Table, TableWriter, Ttl, Ttls, Welcome, parse,
};
pub use ids::{Code, Epoch, LinkId, Side, StreamId};
pub use key::{Exporter, Hashing, Key};
pub use link::{
    ACK_OF_RESET, Chunk, Datagram, Event, HOLD_MAX, Judged, Link, LinkError, Offer, ResumeError, SETTLE_MAX,
};
pub use pulse::{ANSWER_IN_HURRY, ANSWER_MIN, SILENCE};
pub use stream::{Breach, DATAGRAM_MAX, Patience, Request};
pub use varint::VARINT_MAX;

#[cfg(test)]
mod tests;
