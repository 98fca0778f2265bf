//! What is believed of a server is true of it: what was asked and not done, what a server has by another
//! encoding, what a role may not change.

use tieline_testkit::pg::{Conversation, Message, frontend};

use crate::house::Server;
use crate::pooling::tieline;

const ONE: &str = "{ mode = \"transaction\", size = 1 }";

fn log_in(at: std::net::SocketAddr) -> Conversation {
    Conversation::log_in(at, "postgres", "postgres")
}

fn code(said: &[Message]) -> String {
    said.iter().find(|message| message.kind == b'E').map(|error| error.field(b'C')).unwrap_or_default()
}

fn prepare(client: &mut Conversation, name: &str, sql: &str) {
    client.send(&[frontend::parse(name, sql, &[]), frontend::sync()].concat()).unwrap();
    assert_eq!(code(&client.until(b'Z').unwrap()), "");
}

/// Binds and runs a statement: its first value, or the code of the error.
fn run(client: &mut Conversation, name: &str) -> String {
    let batch = [frontend::bind("", name, &[], 0), frontend::execute("", 0), frontend::sync()];
    client.send(&batch.concat()).unwrap();
    let said = client.until(b'Z').unwrap();
    let row = said.iter().find(|message| message.kind == b'D');
    row.map_or_else(|| code(&said), |row| row.columns()[0].clone().unwrap_or_default())
}

/// Asks in the client's own bytes: the bytes of the first value, or the error's code.
fn value_of(client: &mut Conversation, sql: &[u8]) -> Vec<u8> {
    let mut query = vec![b'Q'];
    query.extend_from_slice(&(sql.len() as u32 + 5).to_be_bytes());
    query.extend_from_slice(sql);
    query.push(0);
    client.send(&query).unwrap();
    let said = client.until(b'Z').unwrap();
    match said.iter().find(|message| message.kind == b'D') {
        // One column: its count and its length come first.
        Some(row) => row.body[6..].to_vec(),
        None => code(&said).into_bytes(),
    }
}

#[test]
fn what_a_client_that_vanished_had_done_is_undone_where_everything_is() {
    let server = Server::start();
    server.ask(
        "create function sly() returns void language sql as $$ select set_config('app.sly', 'told', false); \
         select pg_advisory_lock(7) $$",
    );
    let (_tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1, reset = \"always\" }");
    let mut one = log_in(address);
    one.query("begin");
    one.query("select sly()");
    one.reset();
    let mut other = log_in(address);
    assert_eq!(other.value("select count(*) from pg_locks where locktype = 'advisory'"), "0");
    assert_eq!(other.value("select coalesce(current_setting('app.sly', true), '')"), "");
}

#[test]
fn a_statement_that_was_not_deallocated_is_there_for_all_who_have_it() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, ONE);
    let (mut one, mut other) = (log_in(address), log_in(address));
    for client in [&mut one, &mut other] {
        prepare(client, "s", "select 'same'");
    }
    one.query("deallocate s; selec");
    assert_eq!(run(&mut other, "s"), "same");
    assert_eq!(run(&mut one, "s"), "same");
    one.query("deallocate s x");
    assert_eq!(run(&mut other, "s"), "same");
    // What was done before something failed was done.
    one.query("deallocate s; select 1/0");
    assert_eq!((run(&mut one, "s"), run(&mut other, "s")), ("26000".into(), "same".into()));
}

#[test]
fn a_name_that_was_taken_behind_our_back_is_told_once() {
    let server = Server::start();
    server.ask(
        "create function sneak(name text) returns void language plpgsql as \
         $$ begin execute 'prepare ' || name || ' as select 1'; end $$",
    );
    let (_tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 2 }");
    let (mut one, mut other) = (log_in(address), log_in(address));
    // At another server, so that it is known by a name.
    one.query("begin");
    prepare(&mut one, "s", "select 'same'");
    let ours = one.value("select name from pg_prepared_statements");
    other.query(&format!("select sneak('{ours}')"));
    other.send(&[frontend::parse("s", "select 'same'", &[]), frontend::sync()].concat()).unwrap();
    assert_eq!(code(&other.until(b'Z').unwrap()), "42P05");
    prepare(&mut other, "s", "select 'same'");
    assert_eq!((run(&mut one, "s"), run(&mut other, "s")), ("same".into(), "same".into()));
}

#[test]
fn settings_mean_the_same_whatever_encoding_a_server_had_last() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, ONE);
    let (mut latin, mut unicode) = (log_in(address), log_in(address));
    // What means nothing in the encoding that it has yet is refused, and that is all.
    assert_eq!(value_of(&mut latin, b"set \xe4.b = 'own'"), b"22021");
    latin.query("set client_encoding to latin1");
    value_of(&mut latin, b"set app.tenant = 'gr\xfcn'; set \xe4.b = 'own'");
    value_of(&mut unicode, "set app.tenant = 'grün'; set app.other = 'Ã¼'; set Ã¤.b = 'x'".as_bytes());
    for _ in 0..2 {
        assert_eq!(value_of(&mut latin, b"show app.tenant"), b"gr\xfcn");
        assert_eq!(value_of(&mut latin, b"show \xe4.b"), b"own");
        assert_eq!(value_of(&mut unicode, b"show app.tenant"), "grün".as_bytes());
        let length = b"select octet_length(current_setting('app.other'))";
        assert_eq!(value_of(&mut unicode, length), b"4");
        let of_another = "select coalesce(current_setting('ä.b', true), '')".as_bytes();
        assert_eq!(value_of(&mut unicode, of_another), b"");
    }
}

#[test]
fn a_role_is_laid_down_for_whatever_only_another_may_change() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, ONE);
    let (mut one, mut other) = (log_in(address), log_in(address));
    one.query("set role tenant");
    other.query("set log_statement = 'all'; set role tenant");
    for _ in 0..2 {
        assert_eq!(one.value("select current_user || current_setting('log_statement')"), "tenantnone");
        assert_eq!(other.value("select current_user || current_setting('log_statement')"), "tenantall");
    }
}

#[test]
fn whoever_resets_its_session_knows_what_it_has_from_then_on() {
    let server = Server::start();
    for mode in ["session", "transaction"] {
        let (_tieline, address) = tieline(&server, &format!("{{ mode = \"{mode}\", size = 1 }}"));
        let who = [("user", "postgres"), ("database", "postgres"), ("client_encoding", "LATIN1")];
        let own = [("timezone", "Asia/Tokyo"), ("work_mem", "12MB")];
        let mut client = Conversation::log_in_with(address, &[&who[..], &own].concat());
        for all in ["discard all", "reset all", "reset client_encoding; reset timezone"] {
            let said = client.query(all);
            let last = |name: &str| {
                let told = said.iter().filter(|message| message.kind == b'S');
                let mut words = told.map(|message| {
                    let text = String::from_utf8_lossy(&message.body).into_owned();
                    text.split('\0').map(str::to_owned).collect::<Vec<_>>()
                });
                words.rfind(|words| words[0] == name).map(|words| words[1].clone())
            };
            // Told before it is told that it may go on.
            assert_eq!(last("client_encoding").as_deref(), Some("LATIN1"), "{mode}: {all}: {said:?}");
            assert_eq!(last("TimeZone").as_deref(), Some("Asia/Tokyo"), "{mode}: {all}");
            assert_eq!(value_of(&mut client, b"select chr(228)"), b"\xe4", "{mode}: {all}");
        }
        // By the extended protocol too.
        prepare(&mut client, "r", "reset work_mem");
        assert_eq!(client.value("show work_mem"), "12MB", "{mode}");
        client.query("set work_mem = '5MB'");
        run(&mut client, "r");
        assert_eq!(client.value("show work_mem"), "12MB", "{mode}");
    }
}

#[test]
fn settings_without_end_are_not_kept_and_keep_their_client_at_its_server() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, ONE);
    let mut one = log_in(address);
    let backend = one.value("select pg_backend_pid()");
    one.query("set app.long = 'short'");
    one.query(&format!("set app.long = '{}'", "x".repeat(2 << 20)));
    assert_eq!(one.value("select length(current_setting('app.long'))"), (2 << 20).to_string());
    one.query("set work_mem = '5MB'");
    assert_eq!(one.value("show work_mem"), "5MB");
    assert_eq!(one.value("select pg_backend_pid()"), backend);
    drop(one);
    let mut other = log_in(address);
    assert_eq!(other.value("select coalesce(current_setting('app.long', true), '')"), "");
    assert_eq!(other.value("show work_mem"), "4MB");
    for at in 0..40 {
        other.query(&format!("set app.s{at} = '{}'", "x".repeat(60_000)));
    }
    assert_eq!(other.value("select length(current_setting('app.s39'))"), "60000");
    drop(other);
    assert_eq!(log_in(address).value("select coalesce(current_setting('app.s1', true), '')"), "");
}

#[test]
fn a_statement_that_others_have_is_not_prepared_in_a_transaction_that_just_failed() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, ONE);
    let (mut one, mut other) = (log_in(address), log_in(address));
    prepare(&mut other, "s", "select 'known'");
    let parse = || [frontend::parse("s", "select 'known'", &[]), frontend::sync()].concat();
    let failing = [frontend::query("begin"), frontend::query("select 1/0")].concat();
    // All in one write: nobody has heard of the failure when the statement comes.
    one.send(&[failing, parse(), frontend::query("rollback")].concat()).unwrap();
    let codes: Vec<_> = (0..4).map(|_| code(&one.until(b'Z').unwrap())).collect();
    assert_eq!(codes, ["", "22012", "25P02", ""]);
    assert_eq!(run(&mut one, "s"), "26000", "there is none of that name");
    // In one that goes on it is.
    one.send(&[frontend::query("begin"), parse(), frontend::query("commit")].concat()).unwrap();
    let codes: Vec<_> = (0..3).map(|_| code(&one.until(b'Z').unwrap())).collect();
    assert_eq!(codes, ["", "", ""]);
    assert_eq!((run(&mut one, "s"), run(&mut other, "s")), ("known".into(), "known".into()));
}
