//! What a parser says about the beginning of its input.

use std::fmt::Debug;

use tieline_wire::Parsed;

/// So many prefixes at each end are tried, and as many in between: parsing all of them would be quadratic.
const TRIED: usize = 16;

/// Asserts that what `parse` says about a part of `data` stays true for all of it: it waits, for no more
/// than it announced, or it has decided what it decides in the end.
pub(crate) fn assert_final<T, E>(data: &[u8], parse: impl Fn(&[u8]) -> Result<Parsed<T>, E>)
where
    T: PartialEq + Debug,
    E: PartialEq + Debug,
{
    let whole = parse(data);
    if let Ok(Parsed::Done { consumed, .. }) = &whole {
        assert!(*consumed <= data.len(), "consumed {consumed} of {}", data.len());
    }
    for cut in cuts(data.len()) {
        match parse(&data[..cut]) {
            Ok(Parsed::Incomplete { at_most }) => {
                assert!(cut < at_most, "waits at {cut} for {at_most}");
                // Consuming nothing is an answer about the first bytes, not a message.
                if let Ok(Parsed::Done { consumed: consumed @ 1.., .. }) = &whole {
                    assert!(cut < *consumed && *consumed <= at_most, "{cut} < {consumed} <= {at_most}");
                }
            }
            decided => assert_eq!(decided, whole, "decided after {cut} bytes"),
        }
    }
}

fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let between = (0..length).step_by((length / TRIED).max(1));
    (0..length.min(TRIED)).chain(between).chain(length.saturating_sub(TRIED)..length)
}
