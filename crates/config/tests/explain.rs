//! The answers that are written from the descriptions: `explain`, the schema and the reference page.

use serde_json::Value;
use tieline_config::{Block, FILE, explain, reference, schema};

fn text(key: &str) -> String {
    explain(key).unwrap_or_else(|unknown| panic!("{unknown}"))
}

#[test]
fn a_key_is_explained_by_every_way_to_write_it() {
    let answer = text("listener.*.bind");
    for key in
        ["listener.web.bind", "listener.bind", "listener.NAME.bind", "[listener.web].bind", " listener.bind "]
    {
        assert_eq!(text(key), answer, "{key}");
    }
    assert_eq!(text("listener.web.route[].sni"), text("listener.route.sni"));
    assert_eq!(text("upstream.shop.endpoints[].weight"), text("upstream.endpoints.weight"));
}

#[test]
fn an_explanation_has_meaning_unit_default_and_example() {
    assert_eq!(
        text("listener.timeouts.idle"),
        "listener.*.timeouts.idle
  A connection on which no byte moved either way for so long ends with reason `idle`. With protocol \"http\" \
it is the time between two requests.

  Takes:    a duration of at least 1ms: ms, s, m, h, d, like \"1h30m\"
  Default:  left out: 75s with protocol \"http\", 1d with \"postgres\", and 1h with every other.

  Example:
    [listener.NAME.timeouts]
    idle = \"15m\"
"
    );
}

#[test]
fn the_keys_of_http_and_tls_are_explained() {
    for (key, part) in [
        ("listener.web.route.host", "Protocol: \"http\""),
        ("listener.route.path", "{name}"),
        ("listener.route.headers", "\"*\" for any value"),
        ("listener.route.query", "after percent-decoding"),
        ("listener.route.redirect.to", "to = \"https://{host}{path}{query}\""),
        ("listener.route.respond.type", "\"text/plain; charset=utf-8\""),
        ("listener.limits.request_line", "a size from 1KiB to 1MiB"),
        ("listener.limits.body", "a size: B, KiB"),
        ("listener.timeouts.tunnel_idle", "WebSocket"),
        ("listener.trusted_forwarders", "X-Forwarded-For"),
        ("listener.web.tls", "\"self-signed\""),
        ("listener.tls.client", "\"optional\""),
        ("upstream.tls", "\"insecure\""),
        ("upstream.shop.tls.server_name", "certificates"),
        ("upstream.timeouts.first_byte", "504"),
        ("upstream.pool.max_age", "not used again"),
    ] {
        assert!(text(key).contains(part), "{key}: {}", text(key));
    }
}

#[test]
fn a_block_is_explained_by_its_keys() {
    for key in
        ["server", "[listener.NAME]", "listener", "listener.web", "listener.web.limits", "upstream.pool"]
    {
        let answer = text(key);
        assert!(answer.starts_with('[') && answer.contains("More: tieline explain "), "{answer}");
    }
}

#[test]
fn an_unknown_key_is_answered_with_the_one_that_was_meant() {
    let error = |key: &str| explain(key).map_or_else(|unknown| unknown.to_string(), |text| panic!("{text}"));
    for (key, meant) in [
        ("listener.bnd", "listener.*.bind"),
        ("listener.web.bnd", "listener.*.bind"),
        ("listener.idle", "listener.*.timeouts.idle"),
        ("idle", "listener.*.timeouts.idle"),
        ("server.wokers", "server.workers"),
        ("upstrem", "upstream"),
    ] {
        let answer = error(key);
        assert!(answer.contains(&format!("did you mean \"{meant}\"")), "{key}: {answer}");
        assert!(!answer.contains('\n'));
    }
    assert_eq!(error("frobnicate"), "\"frobnicate\" is no key of the config file");
    assert_eq!(error(""), "\"\" is no key of the config file");
}

#[test]
fn a_key_of_a_later_version_is_explained_as_such() {
    assert!(text("listener.web.peers").contains("not in this version"));
    assert!(text("acme").contains("this version does not have"));
}

/// Walks schema and descriptions side by side.
fn agree(schema: &Value, block: &'static Block) {
    assert_eq!(schema["additionalProperties"], false, "{}", block.path);
    let properties = schema["properties"].as_object().map(|it| it.keys().cloned().collect::<Vec<_>>());
    let mut names: Vec<_> = block.keys.iter().map(|key| key.name.to_string()).collect();
    names.sort();
    assert_eq!(properties, Some(names), "{}", block.path);
    for key in block.keys {
        let property = &schema["properties"][key.name];
        assert_eq!(property["description"], key.meaning);
        assert!(property["examples"][0] != Value::Null, "{}", key.name);
        if let Some(inner) = key.kind.block() {
            agree(table_within(property).unwrap_or_else(|| panic!("{} has no table", key.name)), inner);
        }
    }
}

/// The schema of the table that a property is, holds or may be.
fn table_within(schema: &Value) -> Option<&Value> {
    if schema.get("properties").is_some() {
        return Some(schema);
    }
    let inner = [&schema["items"], &schema["anyOf"], &schema["patternProperties"]];
    inner.into_iter().find_map(|it| match it {
        Value::Array(choices) => choices.iter().find_map(table_within),
        Value::Object(map) if map.contains_key("type") || map.contains_key("anyOf") => table_within(it),
        Value::Object(map) => map.values().find_map(table_within),
        _ => None,
    })
}

#[test]
fn the_schema_has_every_key_and_no_other() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    agree(&schema, &FILE);
}

#[test]
fn the_reference_page_names_every_key() {
    let page = reference();
    fn names(page: &str, block: &'static Block) {
        for key in block.keys {
            assert!(block.path.is_empty() || page.contains(&format!("### `{}`", key.name)), "{}", key.name);
            if let Some(inner) = key.kind.block() {
                assert!(page.contains(inner.meaning), "{}", inner.path);
                names(page, inner);
            }
        }
    }
    names(&page, &FILE);
}
