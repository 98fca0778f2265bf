//! Requests held against an OpenAPI document.

use std::sync::LazyLock;

use serde_json::Value;
use tieline_openapi::{Api, Ask, Options, Refusal};

static API: LazyLock<Option<Api>> = LazyLock::new(|| {
    let document = include_str!("../../crates/openapi/tests/orders.openapi.yaml");
    Api::load(document, &Options::default()).ok()
});

/// What stands for a secret in the inputs.
const CANARY: &str = "hunter2";

/// The first line is `METHOD target`, lines of fields follow up to an empty one, and the rest is the body.
/// What is told of it is bounded and repeats no value; a JSON body that passes means the same to every
/// reader.
pub fn openapi(data: &[u8]) {
    let Some(api) = &*API else { panic!("the document is sound") };
    let text = String::from_utf8_lossy(data);
    let (head, _) = text.split_once("\n\n").unwrap_or((&text, ""));
    let body = data.windows(2).position(|pair| pair == b"\n\n").map_or(&[][..], |at| &data[at + 2..]);
    let (line, fields) = head.split_once('\n').unwrap_or((head, ""));
    let (method, target) = line.split_once(' ').unwrap_or((line, "/"));
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let header = |name: &str, fits: &mut dyn FnMut(&[u8]) -> bool| {
        let mut lines = fields.lines().filter_map(|line| line.split_once(':'));
        lines.any(|(own, value)| own.eq_ignore_ascii_case(name) && fits(value.trim().as_bytes()))
    };
    let ask = Ask { method, path, query, header: &header, has_body: !body.is_empty() };
    let inspected = api.inspect(&ask);
    if let Some(refusal) = &inspected.refusal {
        assert!((400..=422).contains(&refusal.status));
        bounded(refusal, &names(query.unwrap_or_default()));
    }
    let Some(rule) = inspected.body else { return };
    match rule.check(body) {
        Err(error) => {
            let is_form = header("content-type", &mut |value| value.ends_with(b"urlencoded"));
            let mut names = if is_form { names(&String::from_utf8_lossy(body)) } else { String::new() };
            if let Ok(value) = serde_json::from_slice(body) {
                collect(&value, &mut names);
            }
            bounded(&Refusal::from(error), &names);
        }
        Ok(()) if header("content-type", &mut |value| value.ends_with(b"json")) => {
            let value: Value = serde_json::from_slice(body).expect("what passes is JSON");
            let again = value.to_string();
            assert_eq!(rule.check(again.as_bytes()), Ok(()), "what passes has one reading");
        }
        Ok(()) => {}
    }
}

/// The names in a query, whose values must not be repeated.
fn names(query: &str) -> String {
    query.split('&').filter_map(|pair| pair.split('=').next()).collect::<Vec<_>>().join("&")
}

/// The names of all members.
fn collect(value: &Value, names: &mut String) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, names)),
        Value::Object(members) => members.iter().for_each(|(name, member)| {
            names.push_str(name);
            collect(member, names);
        }),
        _ => {}
    }
}

/// Names may be told, and nothing else: `names` is where they stand.
fn bounded(refusal: &Refusal, names: &str) {
    assert!(!refusal.violations.is_empty());
    let told = format!("{refusal:?}{refusal}");
    assert!(told.len() < 20_000, "{} bytes", told.len());
    assert!(names.contains(CANARY) || names.contains('%') || !told.contains(CANARY), "{told}");
}
