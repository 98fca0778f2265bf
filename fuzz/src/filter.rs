//! Filters: what the CLI and the API take from people.

use tieline_registry::Filter;

/// What is read prints as text that reads the same.
pub fn filter(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(filter) = text.parse::<Filter>() else { return };
    let printed = filter.to_string();
    assert_eq!(printed.parse::<Filter>().as_ref(), Ok(&filter), "{text:?} printed as {printed:?}");
}
