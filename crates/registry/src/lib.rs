//! Floor 1: the one live table. Every connection is a row from before its first byte to its end.
//!
//! Owns [`Record`] (the row), [`Registry`] (the table and the history of the finished), [`Filter`] (the words
//! that select rows) and the [`Meter`]s that rows add to when they end. Refuses to know sockets, config and
//! what any protocol means. A row is written by its own worker alone; everybody else reads it, or says when
//! it must end. Start with [`Record`].

mod exchanged;
mod filter;
mod histogram;
mod meter;
mod record;
mod row;
mod table;
mod tally;
mod verdict;

pub use exchanged::{Asked, Exchanged};
pub use filter::{Filter, FilterError};
pub use histogram::{BUCKETS, Histogram, HistogramReading};
pub use meter::{ListenerRow, Logged, Meter, MeterReading, Mirrored, RouteRow, UpstreamRow};
pub use record::{Chosen, Ended, Heard, Opening, Record, Settled};
pub use row::{ExchangeRow, Note, Row, StageMark, Story};
pub use table::{Finished, Limits, Registry, Told};
pub use tally::Tally;
pub use verdict::Verdict;
