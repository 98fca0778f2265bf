//! The same conversations with PostgreSQL itself and through a proxy: what each client hears must be the
//! same, message by message.

use std::fmt::Write as _;
use std::net::SocketAddr;

use tieline_testkit::PgBouncer;

use crate::house::Server;
use crate::positions;
use crate::script::{Manner, Script, Transcript};

/// All scripts; of `TIELINE_SCRIPTS` only those whose name holds that text, to look at one alone.
fn scripts() -> Vec<Script> {
    let files = [
        include_str!("scripts/simple.txt"),
        include_str!("scripts/transactions.txt"),
        include_str!("scripts/extended.txt"),
        include_str!("scripts/pipelines.txt"),
        include_str!("scripts/portals.txt"),
        include_str!("scripts/prepared.txt"),
        include_str!("scripts/copy.txt"),
        include_str!("scripts/functions.txt"),
        include_str!("scripts/settings.txt"),
        include_str!("scripts/notices.txt"),
        include_str!("scripts/cancels.txt"),
        include_str!("scripts/malformed.txt"),
        include_str!("scripts/starts.txt"),
    ];
    let written = files.iter().flat_map(|text| Script::read(text));
    let wanted = std::env::var("TIELINE_SCRIPTS").unwrap_or_default();
    written.chain(positions::scripts()).filter(|script| script.name.contains(&wanted)).collect()
}

/// A script that was answered otherwise.
pub(crate) struct Difference {
    pub(crate) name: String,
    pub(crate) shown: String,
}

/// Plays every script directly and at `proxy`, there in this manner.
pub(crate) fn differences(server: &Server, proxy: SocketAddr, manner: Manner) -> Vec<Difference> {
    let mut differences = Vec::new();
    for script in scripts() {
        let direct = script.play(server.address(), server, Manner::Whole);
        tidy_up(server);
        let through = script.play(proxy, server, manner);
        tidy_up(server);
        if direct != through {
            let shown = shown(&direct, &through);
            differences.push(Difference { name: script.name, shown });
        }
    }
    differences
}

/// What a script may have left; waits for transactions that are still rolled back.
pub(crate) fn tidy_up(server: &Server) {
    server.ask("truncate dest; drop table if exists scratch");
}

/// What each client heard from where it differs, in both worlds.
pub(crate) fn shown(direct: &Transcript, through: &Transcript) -> String {
    let mut text = String::new();
    for (name, expected) in direct {
        let none = Vec::new();
        let heard = through.get(name).unwrap_or(&none);
        let same = expected.iter().zip(heard).take_while(|(one, other)| one == other).count();
        if same == expected.len() && same == heard.len() {
            continue;
        }
        let side = |lines: &[String]| {
            let lines =
                lines.iter().skip(same).take(4).map(|line| line.chars().take(300).collect::<String>());
            lines.collect::<Vec<_>>().join("\n        ")
        };
        let _ = write!(
            text, // a String takes everything
            "  {name}, after {same} equal messages:\n    it is {}\n    was   {}\n",
            side(expected),
            side(heard)
        );
    }
    text
}

#[track_caller]
pub(crate) fn assert_only(known: &[&str], differences: &[Difference]) {
    let new: Vec<&Difference> =
        differences.iter().filter(|difference| !known.contains(&difference.name.as_str())).collect();
    let text: String = new.iter().map(|one| format!("== {}\n{}", one.name, one.shown)).collect();
    assert!(new.is_empty(), "{} scripts are answered otherwise:\n{text}", new.len());
    let all = std::env::var("TIELINE_SCRIPTS").is_err();
    let is_gone = |name: &&&str| !differences.iter().any(|difference| difference.name == **name);
    let gone: Vec<&&str> = known.iter().filter(is_gone).collect();
    assert!(!all || gone.is_empty(), "no longer answered otherwise; take them off the list: {gone:?}");
}

#[test]
fn there_are_scripts_enough_and_each_has_a_name_of_its_own() {
    let mut names: Vec<String> = scripts().into_iter().map(|script| script.name).collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count >= 150 || std::env::var("TIELINE_SCRIPTS").is_ok(), "{count}");
}

/// What differs between two runs of the server itself would say nothing about a proxy.
#[test]
fn postgres_answers_bytes_one_by_one_as_it_answers_pieces() {
    let server = Server::start();
    assert_only(&[], &differences(&server, server.address(), Manner::ByteByByte));
}

/// The scripts tell a proxy from the server: PgBouncer is known not to do these.
#[test]
fn pgbouncer_is_told_from_the_server_where_it_is_known_to_differ() {
    let server = Server::start();
    let database = format!("* = host=127.0.0.1 port={}", server.address().port());
    let settings = [("pool_mode", "session"), ("ignore_startup_parameters", "options")];
    let bouncer = PgBouncer::start(&[&database], &settings, &["\"postgres\" \"\""]);
    assert_only(PGBOUNCER, &differences(&server, bouncer.address(), Manner::Whole));
}

/// It knows few parameters of a start and not the server's settings, answers what is malformed in its own
/// way, and its errors of a login have no SQLSTATE of their own.
const PGBOUNCER: &[&str] = &[
    "copy in with a query within ends in an error",
    "parameters of the start",
    "options of the start",
    "flags of the start",
    "reset returns to the value of the start",
    "a wrong value at the start",
    "a setting that is not there at the start",
    "a message of no known type",
    "a message of no known type after others",
    "a length below its own size",
    "a length of nothing",
    "a negative length",
    "a Sync of impossible size",
    "a Close of impossible size",
    "a query longer than any",
    "a password when none was asked for",
    "a startup packet that is too long",
    "a startup packet that is too short",
    "a startup packet of no length",
    "a startup packet without its end",
    "a startup packet without a user",
    "a database that is not there",
    "a user that is not there",
];
