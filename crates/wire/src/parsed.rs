//! The answer of every parser here.

/// What the bytes so far amount to; bytes that can never become right are the parser's error instead.
///
/// An answer is final: parsing the same bytes with more behind them gives the same [`Parsed::Done`] or the
/// same error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed<T> {
    /// More bytes are needed, and the whole will never be longer than this.
    Incomplete {
        /// The most bytes that can be needed, counted from the first one; always above what was given.
        at_most: usize,
    },
    /// Whole and right.
    Done {
        /// The meaning.
        value: T,
        /// How many bytes carried it; what follows is not the parser's.
        consumed: usize,
    },
}
