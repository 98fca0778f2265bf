//! What requests say, read strictly: a misspelt parameter is told, never ignored.

use std::borrow::Cow;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tieline_registry::Filter;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::acts::Words;

/// A request's JSON body. An empty one stands for `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let too_large = |_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 64 KiB");
        let bytes = Bytes::from_request(request, state).await.map_err(too_large)?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let wrong = |error| Problem::bad_request(format!("the body: {error}"));
        serde_json::from_slice(text).map(Self).map_err(wrong)
    }
}

/// Which connections to end.
#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// Conditions, separated by spaces: `listener=web age>1h`.
    #[serde(default)]
    filter: String,
    /// Why; goes into the connections' stories.
    reason: Option<String>,
    /// Must be true for a filter without conditions, which means every connection.
    #[serde(default)]
    all: bool,
}

impl Order {
    /// The filter and the words, if they are safe to act on.
    pub(super) fn read(self) -> Result<(Filter, Words), Problem> {
        let filter: Filter = self.filter.parse().map_err(Problem::bad_request)?;
        if filter.is_empty() && !self.all {
            return Err(Problem::bad_request(
                "an empty filter means every connection; say so with \"all\": true, or name some with \
                 \"filter\"",
            ));
        }
        Ok((filter, words(self.reason)?))
    }
}

/// Why something is taken out of use.
#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Reasons {
    /// Why; goes into the connections' stories.
    reason: Option<String>,
}

impl Reasons {
    pub(super) fn read(self) -> Result<Words, Problem> {
        words(self.reason)
    }
}

/// Stories are kept by the ten thousand: an operator's words have their bound.
const WORDS_BYTES_MAX: usize = 200;

fn words(reason: Option<String>) -> Result<Words, Problem> {
    if reason.as_ref().is_some_and(|reason| reason.len() > WORDS_BYTES_MAX) {
        return Err(Problem::bad_request(format!("\"reason\" is longer than {WORDS_BYTES_MAX} bytes")));
    }
    Ok(Words(reason))
}

/// Which page of which connections.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct PageQuestion {
    pub(super) filter: Filter,
    pub(super) limit: usize,
    pub(super) cursor: Option<String>,
    pub(super) finished: bool,
}

/// How many rows a page has if the question does not say.
pub(super) const LIMIT_DEFAULT: usize = 1_000;

/// The most rows of a page.
pub(super) const LIMIT_MAX: usize = 100_000;

impl PageQuestion {
    /// Reads a query string. `filter` may come several times; all must hold.
    pub(super) fn read(query: &str) -> Result<Self, Problem> {
        let mut filters: Vec<Cow<'_, str>> = Vec::new();
        let (mut limit, mut cursor, mut finished) = (LIMIT_DEFAULT, None, false);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "filter" => filters.push(value),
                "limit" => limit = read_limit(&value)?,
                "cursor" => cursor = Some(value.into_owned()),
                "finished" => finished = read_flag(&value)?,
                other => {
                    let detail =
                        format!("\"{other}\" is no parameter; there are: filter, limit, cursor, finished");
                    return Err(Problem::bad_request(detail));
                }
            }
        }
        let filter = Filter::all_of(filters.iter().map(|filter| &**filter)).map_err(Problem::bad_request)?;
        Ok(Self { filter, limit, cursor, finished })
    }
}

fn read_limit(value: &str) -> Result<usize, Problem> {
    let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit
        .ok_or_else(|| Problem::bad_request(format!("limit: \"{value}\" is no number from 1 to {LIMIT_MAX}")))
}

fn read_flag(value: &str) -> Result<bool, Problem> {
    value
        .parse()
        .map_err(|_| Problem::bad_request(format!("finished: \"{value}\" is neither true nor false")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_may_be_repeated_or_separated_by_spaces() {
        let repeated = PageQuestion::read("filter=listener%3Dweb&filter=age%3E1h").unwrap();
        let spaced = PageQuestion::read("filter=listener%3Dweb+age%3E1h").unwrap();
        assert_eq!(repeated, spaced);
        assert_eq!(repeated.filter.to_string(), "listener=web age>1h");
        assert_eq!((repeated.limit, repeated.finished), (LIMIT_DEFAULT, false));
    }

    #[test]
    fn what_is_misspelt_is_told() {
        for query in
            ["fliter=x", "limit=0", "limit=100001", "limit=x", "finished=maybe", "filter=listner%3Dx"]
        {
            assert!(PageQuestion::read(query).is_err(), "{query}");
        }
    }
}
