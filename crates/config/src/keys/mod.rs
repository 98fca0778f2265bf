//! Every key of the file, as data. Read it beside a config: it stands in the same order.

mod agent;
mod allow;
mod forwarding;
mod group;
mod guards;
mod limits;
mod listener;
mod postgres;
mod server;
mod support;
mod tls;
mod upstream;
mod user;

use crate::key::{Block, Kind, key, of_feature};

pub(crate) use agent::{AGENT, OFFER};
pub(crate) use group::GROUP;
pub(crate) use listener::LISTENER;
pub(crate) use server::{ADMIN, SERVER};
pub(crate) use upstream::UPSTREAM;
pub(crate) use user::USER;

/// The whole file.
pub static FILE: Block = Block {
    path: "",
    meaning: "The config file, in TOML. A key that is not described here is refused.",
    keys: &[
        key("server", Kind::Table(&SERVER))
            .or_else("Every key has its default.")
            .means("What concerns the process as a whole.")
            .example(r#"{ data = "/var/lib/tieline" }"#),
        key("admin", Kind::Table(&ADMIN))
            .or_else("Every key has its default.")
            .means("Where operators and their tools reach the server.")
            .example(r#"{ listen = "127.0.0.1:7070" }"#),
        key("listener", Kind::Named(&LISTENER))
            .or_else("Nothing is accepted.")
            .means(
                "Where connections are accepted, by which protocol and under which limits. NAME is of your \
                 choice.",
            )
            .example(
                r#"{ db = { bind = "127.0.0.1:6432", protocol = "tcp", route = [{ upstream = "db" }] } }"#,
            ),
        key("upstream", Kind::Named(&UPSTREAM))
            .or_else("There is nowhere to route to.")
            .means("A set of endpoints that do the same work. NAME is what routes call it.")
            .example(r#"{ db = { endpoints = ["10.0.0.5:5432"] } }"#),
        key("group", Kind::Named(&GROUP))
            .or_else("There are no groups.")
            .means(
                "People and programs that policy speaks of together. NAME is what `allow.identity` calls \
                 them.",
            )
            .example(r#"{ support = { members = ["ana", "bob"] } }"#),
        key("user", Kind::Named(&USER))
            .or_else("Nobody can log in with a password.")
            .means("Somebody who may log in with a password. NAME is the name that they log in by.")
            .example(r#"{ ana = { password_file = "ana.pw" } }"#),
        key("agent", Kind::Table(&AGENT))
            .or_else("The file is a server's.")
            .means("Makes the file an agent's, for `tieline agent run`: which server it dials, and as whom.")
            .example(r#"{ server = "gate.example.com:7443", folder = "plant-7" }"#),
        key("offer", Kind::Named(&OFFER))
            .or_else("An agent offers nothing.")
            .means(
                "In an agent's file: a service that the server may reach through it, as agent:AGENT/NAME. \
                 Whatever is not offered cannot be reached.",
            )
            .example(r#"{ ssh = { to = "127.0.0.1:22" } }"#),
    ],
    later: &[
        of_feature("policy", "policy files"),
        of_feature("acme", "certificates by ACME"),
        of_feature("cluster", "clusters"),
    ],
};

#[cfg(test)]
mod tests {
    use super::FILE;
    use crate::explain::{blocks, path_of};
    use crate::fields::read_alone;
    use crate::key::{Absent, Block, Kind};

    #[test]
    fn every_example_and_every_default_is_one_that_its_key_takes() {
        for block in blocks() {
            for key in block.keys {
                let path = path_of(block, key);
                assert!(read_alone(key, key.example).is_ok(), "{path}: {:?}", read_alone(key, key.example));
                if let Absent::Is(value) = key.absent {
                    assert!(read_alone(key, value).is_ok(), "{path}: {:?}", read_alone(key, value));
                }
            }
        }
    }

    #[test]
    fn every_key_says_what_it_means_in_sentences() {
        for block in blocks() {
            assert!(block.meaning.ends_with('.'), "{}", block.path);
            for key in block.keys {
                let path = path_of(block, key);
                assert!(key.meaning.ends_with('.') && key.meaning.len() > 20, "{path}");
                assert!(!key.example.is_empty(), "{path}");
                assert!(!matches!(key.absent, Absent::Means(it) if !it.ends_with('.')), "{path}");
            }
        }
    }

    #[test]
    fn names_are_unique_and_blocks_stand_where_their_path_says() {
        for block in blocks() {
            let mut names: Vec<_> = block.keys.iter().map(|key| key.name).collect();
            names.extend(block.later.iter().map(|later| later.name));
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{} names a key twice", block.path);
            for key in block.keys {
                let Some(inner) = key.kind.block() else { continue };
                let star = if matches!(key.kind, Kind::Named(_)) { ".*" } else { "" };
                assert_eq!(inner.path, path_of(block, key) + star);
            }
        }
    }

    /// One example of every key, each block written out, is a file: the parts that contradict each other left
    /// out.
    #[test]
    fn every_described_key_is_read_and_every_read_key_is_described() {
        // `Fields` asserts both for every block it reads; this reads them all, with and without their keys.
        let mut all = String::new();
        write(&mut all, &FILE);
        for text in [
            all.as_str(),
            "",
            "[server]\n[admin]\n[listener.a]\nroute = [{}]\n[upstream.a]\nendpoints = [{}]\nhealth = {}",
        ] {
            let problems = crate::Config::parse("t.toml", text).map_or_else(|it| it, |it| it.warnings);
            let unknown: Vec<_> = problems.iter().filter(|it| it.message.contains("no key of")).collect();
            assert!(unknown.is_empty(), "{unknown:?}");
        }
    }

    fn write(text: &mut String, block: &Block) {
        for key in block.keys.iter().filter(|key| key.kind.block().is_none()) {
            *text += &format!("{}\n", crate::fields::example(key));
        }
        for inner in block.keys.iter().filter_map(|key| key.kind.block()) {
            *text += &format!("{}\n", crate::explain::header(inner));
            write(text, inner);
        }
    }
}
