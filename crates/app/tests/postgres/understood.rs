//! The same text is the same statement only where it is understood alike: whoever has other settings gets
//! what the server makes of it by those.

use std::net::SocketAddr;

use tieline_testkit::pg::{Conversation, frontend};

use crate::house::Server;
use crate::proxied::{Mode, Tenancy, before_as};

fn log_in(address: SocketAddr) -> Conversation {
    Conversation::log_in(address, "postgres", "postgres")
}

/// Prepares `sql` as `name`, unless that is done, and runs it: its first value, or the code of its error.
fn run(client: &mut Conversation, name: &str, sql: Option<&str>) -> String {
    let parse = sql.map(|sql| frontend::parse(name, sql, &[])).unwrap_or_default();
    let batch =
        [parse, frontend::bind("", name, &[], 0), frontend::execute("", 0), frontend::sync()].concat();
    client.send(&batch).unwrap();
    let said = client.until(b'Z').unwrap();
    let row = said.iter().find(|message| message.kind == b'D').map(|row| row.columns().swap_remove(0));
    let error = said.iter().find(|message| message.kind == b'E').map(|error| error.field(b'C'));
    row.map(|value| value.unwrap_or_default()).or(error).unwrap()
}

/// A text, and a setting by two values of which servers understand it in two ways.
const UNDERSTOOD: [(&str, [&str; 2], &str); 9] = [
    ("datestyle", ["'ISO, MDY'", "'ISO, DMY'"], "select '01/02/2020'::date - '2020-01-01'::date"),
    ("timezone", ["'UTC'", "'Asia/Tokyo'"], "select extract(epoch from '2020-01-01 00:00'::timestamptz)"),
    ("intervalstyle", ["'postgres'", "'sql_standard'"], "select extract(epoch from '-1 2:03:04'::interval)"),
    ("standard_conforming_strings", ["on", "off"], r"select length('a\\b')"),
    ("transform_null_equals", ["off", "on"], "select (null::int = null) is null"),
    ("client_encoding", ["'utf8'", "'latin1'"], "select length('é')"),
    ("array_nulls", ["on", "off"], "select ('{NULL}'::text[])[1] is null"),
    ("search_path", ["public", "other"], "select x from understood"),
    ("backslash_quote", ["on", "off"], r"select E'\''"),
];

const TABLES: [&str; 6] = [
    "create table public.understood as select 1 as x",
    "create table other.understood as select 'two'::text as x",
    "create schema bob",
    "create schema ana",
    "create table bob.owned as select 'of bob'::text as x",
    "create table ana.owned as select 7 as x",
];

fn prepared(server: &Server) {
    for sql in TABLES {
        server.ask(sql);
    }
}

#[test]
fn clients_with_other_settings_never_share_a_statement_that_is_understood_otherwise() {
    let server = Server::start();
    prepared(&server);
    let (_tieline, address) = before_as(&server, Mode::Transaction, 1, Tenancy::Shared);
    for (at, (setting, values, sql)) in UNDERSTOOD.into_iter().enumerate() {
        // Each way round, as whoever comes first decides what the server has.
        for (way, values) in [values, [values[1], values[0]]].into_iter().enumerate() {
            let sql = format!("{sql} /* {at} {way} */");
            let name = format!("s{at}_{way}");
            let answers = values.map(|value| {
                let (mut direct, mut client) = (log_in(server.address()), log_in(address));
                for one in [&mut direct, &mut client] {
                    one.query(&format!("set {setting} = {value}"));
                }
                let expected = run(&mut direct, &name, Some(&sql));
                assert_eq!(run(&mut client, &name, Some(&sql)), expected, "{setting} = {value}: {sql}");
                expected
            });
            assert_ne!(answers[0], answers[1], "{setting} means nothing to {sql}");
        }
    }
}

#[test]
fn who_has_another_role_has_other_statements() {
    let server = Server::start();
    prepared(&server);
    let (_tieline, address) = before_as(&server, Mode::Transaction, 1, Tenancy::Shared);
    let (mut one, mut other) = (log_in(address), log_in(address));
    one.query("set role ana");
    other.query("set role bob");
    let sql = "select x from owned where x = $1";
    let types = |client: &mut Conversation| {
        let batch =
            [frontend::parse("s", sql, &[]), frontend::describe(b'S', "s"), frontend::sync()].concat();
        client.send(&batch).unwrap();
        let said = client.until(b'Z').unwrap();
        said.iter().find(|message| message.kind == b't').map(|types| types.body.clone()).unwrap()
    };
    let (int4, text) = (23_u32.to_be_bytes(), 25_u32.to_be_bytes());
    assert_eq!(types(&mut one)[2..], int4);
    assert_eq!(types(&mut other)[2..], text);
}

#[test]
fn what_a_transaction_has_set_is_not_forgotten_when_others_prepare_the_same() {
    let server = Server::start();
    let (_tieline, address) = before_as(&server, Mode::Transaction, 1, Tenancy::Shared);
    let (mut one, mut other) = (log_in(address), log_in(address));
    let sql = "select extract(epoch from '2020-01-01 00:00'::timestamptz)";
    let (utc, tokyo) = ("1577836800.000000", "1577804400.000000");
    for client in [&mut one, &mut other] {
        client.query("set timezone = 'UTC'");
    }
    one.query("begin; set local timezone = 'Asia/Tokyo'");
    assert_eq!(run(&mut one, "s", Some(sql)), tokyo);
    one.query("commit");
    assert_eq!(run(&mut other, "s", Some(sql)), utc);
    assert_eq!(run(&mut one, "t", Some(sql)), utc);
}

#[test]
fn what_is_prepared_anew_by_other_settings_is_not_taken_for_what_it_was() {
    let server = Server::start();
    let (_tieline, address) = before_as(&server, Mode::Transaction, 1, Tenancy::Shared);
    let (mut one, mut other) = (log_in(address), log_in(address));
    let sql = "select extract(epoch from '2020-01-01 00:00'::timestamptz)";
    let (utc, tokyo) = ("1577836800.000000", "1577804400.000000");
    for client in [&mut one, &mut other] {
        client.query("set timezone = 'UTC'");
    }
    assert_eq!(run(&mut one, "s", Some(sql)), utc);
    one.query("set timezone = 'Asia/Tokyo'");
    // Nobody has it prepared any more, so `one` has it prepared by what it has set since.
    let pid = other.value("select pg_backend_pid()");
    server.ask(&format!("select pg_terminate_backend({pid}, 60000)"));
    assert_eq!(run(&mut one, "s", None), tokyo);
    assert_eq!(run(&mut other, "s", Some(sql)), utc);
}

#[test]
fn those_with_the_same_settings_share_what_is_prepared() {
    let server = Server::start();
    let (_tieline, address) = before_as(&server, Mode::Transaction, 1, Tenancy::Shared);
    let mut clients: Vec<_> = (0..3).map(|_| log_in(address)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.query(&format!("set timezone = 'Asia/Tokyo'; set application_name = 'number {number}'"));
        assert_eq!(run(client, "s", Some("select 'shared by all'")), "shared by all");
    }
    let kept = "select count(*) from pg_prepared_statements where statement like '%shared by all%'";
    assert_eq!(clients[0].value(&format!("{kept} and name like 'tieline%'")), "1");
}
