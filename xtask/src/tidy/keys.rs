//! Pages mention only config keys that exist.

use toml::{Table, Value};

use super::links::prose;
use crate::problem::Problem;
use crate::repository::TextFile;

/// The blocks of the file, and where the short forms of pages (`timeouts.idle`) may live.
const BLOCKS: [&str; 4] = ["server", "admin", "listener", "upstream"];
const INNER: [&str; 6] = ["limits", "timeouts", "pool", "retry", "health", "allow"];

/// Tables whose keys are names of the user's choice.
const FREE: [&str; 4] = ["route.headers", "route.query", "_headers.set", "_headers.add"];

/// `server.rs` is a file.
const ENDINGS: [&str; 7] = ["json", "md", "rs", "sock", "toml", "token", "yaml"];

pub(super) fn check(page: &TextFile) -> Vec<Problem> {
    // A decision may name the key that it refused.
    if page.path.starts_with("docs/decisions/") {
        return Vec::new();
    }
    let unknown = |(at, key): (usize, String)| {
        (!exists(&key))
            .then(|| Problem::at(&page.path, at, format!("mentions `{key}`, which is no config key")))
    };
    let mut problems: Vec<Problem> = mentioned(&page.text).into_iter().filter_map(unknown).collect();
    for (at, text) in examples(&page.text) {
        match text.parse::<Table>() {
            Ok(table) => {
                problems.extend(used("", &table).into_iter().map(|key| (at, key)).filter_map(unknown))
            }
            Err(error) => {
                problems.push(Problem::at(&page.path, at, format!("is no TOML: {}", error.message())))
            }
        }
    }
    problems
}

fn exists(key: &str) -> bool {
    let first = key.split('.').next().unwrap_or_default();
    if INNER.contains(&first) {
        let homes = ["listener", "upstream", "listener.*.route"];
        return homes.iter().any(|home| tieline_config::explain(&format!("{home}.{key}")).is_ok());
    }
    tieline_config::explain(key).is_ok()
}

/// Keys in backticks, with the number of their line.
fn mentioned(text: &str) -> Vec<(usize, String)> {
    let spans =
        prose(text).flat_map(|(at, line)| line.split('`').skip(1).step_by(2).map(move |span| (at, span)));
    spans.filter(|(_, span)| is_key(span)).map(|(at, span)| (at, span.to_owned())).collect()
}

fn is_key(span: &str) -> bool {
    let parts: Vec<&str> = span.split('.').collect();
    let [first, .., last] = parts[..] else { return false };
    let plain = |part: &&str| {
        !part.is_empty()
            && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-*".contains(letter))
    };
    (BLOCKS.contains(&first) || INNER.contains(&first)) && !ENDINGS.contains(&last) && parts.iter().all(plain)
}

/// The ```` ```toml ```` blocks, with the number of the line before their first.
fn examples(text: &str) -> Vec<(usize, String)> {
    let mut examples: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    for (at, line) in (1..).zip(text.lines()) {
        let fence = line.trim_start().strip_prefix("```");
        match (inside, fence) {
            (false, Some("toml")) => examples.push((at, String::new())),
            (true, None) => {
                if let Some((_, example)) = examples.last_mut() {
                    *example += line;
                    *example += "\n";
                }
            }
            _ => {}
        }
        inside = if inside { fence.is_none() } else { fence == Some("toml") };
    }
    examples
}

/// Every key of the config file that `table` sets; other TOML (a Cargo.toml) sets none.
fn used(path: &str, table: &Table) -> Vec<String> {
    let ours = |key: &&String| !path.is_empty() || BLOCKS.contains(&key.as_str());
    let keys = table.keys().filter(ours).map(|key| (key, &table[key]));
    let full = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    keys.flat_map(|(key, value)| set_by(&full(key), value)).collect()
}

fn set_by(path: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Table(_) if FREE.iter().any(|free| path.ends_with(free)) => vec![path.to_owned()],
        Value::Table(table) => used(path, table),
        Value::Array(items) if items.iter().any(Value::is_table) => {
            items.iter().filter_map(Value::as_table).flat_map(|table| used(path, table)).collect()
        }
        _ => vec![path.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let page = TextFile { path: "docs/page.md".into(), text: text.into() };
        check(&page).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_key_that_does_not_exist_is_found() {
        assert_eq!(
            found("`listener.web.bind`, `listener.*.bind`, `timeouts.idle`, `server.rs` and `a.b`"),
            [""; 0]
        );
        assert_eq!(
            found("\nset `listener.web.bnd` or `timeouts.idel`"),
            [
                "docs/page.md:2: mentions `listener.web.bnd`, which is no config key",
                "docs/page.md:2: mentions `timeouts.idel`, which is no config key"
            ]
        );
    }

    #[test]
    fn an_example_with_a_wrong_key_is_found() {
        let example = |body: &str| format!("# x\n```toml\n{body}\n```\nend\n```sh\nx = = 1\n```\n");
        assert_eq!(
            found(&example("[listener.web]\nbind = \"127.0.0.1:1\"\nlimits = { per_ip = 1 }")),
            [""; 0]
        );
        assert_eq!(found(&example("[dependencies]\nserde = \"1\"")), [""; 0]);
        assert_eq!(
            found(&example("[listener.web]\nlimits = { per_op = 1 }\n[[listener.web.route]]\nnaem = \"x\"")),
            [
                "docs/page.md:2: mentions `listener.web.limits.per_op`, which is no config key",
                "docs/page.md:2: mentions `listener.web.route.naem`, which is no config key"
            ]
        );
        assert_eq!(found(&example("bind = = 1")).len(), 1);
    }
}
