//! Floors 2 to 4 and the registry know no protocol by name: a new one is one crate above them and nothing
//! below.

use crate::problem::Problem;
use crate::source::Source;

const IGNORANT: [&str; 4] =
    ["crates/conn/src/", "crates/pool/src/", "crates/registry/src/", "crates/transport/src/"];

const PROTOCOLS: [&str; 5] = ["http", "mysql", "postgres", "redis", "wireguard"];

pub(super) fn check(source: &Source) -> Vec<Problem> {
    if !IGNORANT.iter().any(|folder| source.path.starts_with(folder)) {
        return Vec::new();
    }
    let product = source.numbered().filter(|(_, line)| !line.test);
    let named = product.filter_map(|(at, line)| Some((at, protocol_in(&line.code, &line.quoted)?)));
    let message = |name| format!("names \"{name}\"; protocols live on floor 5, this crate knows none");
    named.map(|(at, name)| Problem::at(&source.path, at, message(name))).collect()
}

fn protocol_in(code: &str, quoted: &str) -> Option<&'static str> {
    // An address is no protocol that we speak.
    let quoted = quoted.replace("https://", "").replace("http://", "");
    let text = format!("{code} {quoted}").to_ascii_lowercase();
    PROTOCOLS.into_iter().find(|name| text.contains(name))
}

#[cfg(test)]
mod tests {
    use super::{Source, check};

    #[test]
    fn a_protocol_named_in_product_code_is_found() {
        let found = |path: &str, text: &str| check(&Source::read(path, text)).len();
        let conn = "crates/conn/src/path.rs";
        assert_eq!(found(conn, "if protocol == \"postgres\" {\nProbe::Http =>\n"), 2);
        assert_eq!(found(conn, "// as HTTP does\nlet page = \"https://example.com\";\n"), 0);
        assert_eq!(found(conn, "#[cfg(test)]\nmod tests {\n    fn http() {}\n}\n"), 0);
        assert_eq!(found("crates/wire/src/greeting.rs", "Probe::Http"), 0);
    }
}
