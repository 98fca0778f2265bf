//! What `kill`, `drain` and `enable` have in common: what they name, and what came of it.

use anyhow::bail;
use clap::Args;
use serde::{Deserialize, Serialize};
use tieline_registry::{Filter, FilterError};

use super::client::{Client, segment};

/// Conditions that select connections.
#[derive(Args, Clone, Debug)]
pub(super) struct Filters {
    /// Conditions like `listener=web`, `age>1h` or a connection's id; all must hold
    #[arg(value_name = "FILTER", value_parser = filter)]
    filters: Vec<String>,
    /// Every connection there is
    #[arg(long, conflicts_with = "filters")]
    all: bool,
}

impl Filters {
    /// Whether nothing is selected.
    pub(super) fn is_empty(&self) -> bool {
        self.filters.is_empty() && !self.all
    }

    /// The conditions in one text.
    pub(super) fn text(&self) -> String {
        filter_of(&self.filters)
    }
}

/// Reads one condition, so that a wrong one is wrong usage and no server is asked. A number alone stands for
/// the connection with that id.
pub(super) fn filter(text: &str) -> Result<String, FilterError> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = if is_number { format!("id={text}") } else { text.to_owned() };
    text.parse::<Filter>().map(|_| text)
}

/// The conditions `filters` in one text.
pub(super) fn filter_of(filters: &[String]) -> String {
    filters.join(" ")
}

#[derive(Serialize)]
struct Order<'o> {
    filter: String,
    all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'o str>,
}

/// Why something is ordered.
#[derive(Serialize)]
pub(super) struct Reasons<'o> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'o str>,
}

/// What came of an order.
#[derive(Deserialize, Debug)]
pub(super) struct Acted {
    pub(super) matched: u64,
    pub(super) ended: u64,
}

/// Orders what `filters` select to be ended: `verb` is `kill` or `drain`.
pub(super) async fn order(
    client: &Client,
    verb: &str,
    filters: &Filters,
    reason: Option<&str>,
) -> anyhow::Result<Acted> {
    if filters.is_empty() {
        bail!("which connections? Name some, like `tieline {verb} listener=web`, or say --all");
    }
    let order = Order { filter: filters.text(), all: filters.all, reason };
    let answer = client.post(&format!("/api/v1/connections/{verb}"), &order).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Something that can be taken out of use and into use again.
#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
pub(super) struct Named {
    /// A whole listener: it lets nobody in until it is enabled again
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// One endpoint: it gets no new connections until it is enabled again
    #[arg(long, value_name = "UPSTREAM/ADDRESS")]
    endpoint: Option<String>,
}

impl Named {
    /// Its path in the API; none if nothing is named.
    pub(super) fn path(&self) -> anyhow::Result<Option<String>> {
        if let Some(listener) = &self.listener {
            return Ok(Some(format!("/api/v1/listeners/{}", segment(listener))));
        }
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        let Some((upstream, address)) = endpoint.split_once('/') else {
            bail!("\"{endpoint}\" names no endpoint; write UPSTREAM/ADDRESS, like shop/10.0.0.9:80");
        };
        Ok(Some(format!("/api/v1/upstreams/{}/endpoints/{}", segment(upstream), segment(address))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_an_id_and_nothing_else_is_changed() {
        let filters = ["17", "listener=web", "age>1h"].map(|text| filter(text).unwrap());
        assert_eq!(filter_of(&filters), "id=17 listener=web age>1h");
        assert_eq!(filter_of(&[]), "");
        assert!(filter("foo=1").is_err());
    }

    #[test]
    fn an_endpoint_is_named_by_its_upstream_and_its_address() {
        let named = |endpoint: &str| Named { listener: None, endpoint: Some(endpoint.into()) };
        let path = named("shop/unix:/run/shop.sock").path().unwrap().unwrap();
        assert_eq!(path, "/api/v1/upstreams/shop/endpoints/unix%3A%2Frun%2Fshop.sock");
        assert!(named("10.0.0.9:80").path().is_err());
    }
}
