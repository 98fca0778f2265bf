//! LISTEN where servers are shared: who listens keeps no server, and hears what it would hear alone.

use std::net::SocketAddr;
use std::time::Duration;

use tieline_testkit::pg::{Conversation, Message, frontend};
use tieline_testkit::{PATIENCE, Tieline, wait_until};

use crate::house::Server;
use crate::proxied::{Mode, Tenancy, before, before_as};

fn log_in(at: SocketAddr) -> Conversation {
    Conversation::log_in(at, "postgres", "postgres")
}

/// The process, the channel and the payload of a notification.
fn heard(message: &Message) -> (u32, String, String) {
    assert_eq!(message.kind, b'A', "{message:?}");
    let (process, said) = message.body.split_first_chunk::<4>().unwrap();
    let mut said = said.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    (u32::from_be_bytes(*process), said.next().unwrap(), said.next().unwrap())
}

fn next(client: &mut Conversation) -> (u32, String, String) {
    heard(&client.message().unwrap().expect("a notification"))
}

fn payload(client: &mut Conversation) -> String {
    next(client).2
}

/// The payloads among what answers a query.
fn payloads(said: &[Message]) -> Vec<String> {
    said.iter().filter(|message| message.kind == b'A').map(|message| heard(message).2).collect()
}

/// The process that a client is told to be.
fn process(client: &Conversation) -> u32 {
    u32::from_be_bytes(*client.key_data().first_chunk().unwrap())
}

/// Hears nothing: what comes next is the answer to a query.
#[track_caller]
fn hears_nothing(client: &mut Conversation) {
    let said = client.query("select 1");
    assert_eq!(payloads(&said), Vec::<String>::new());
}

fn story(tieline: &Tieline, connection: u32) -> String {
    tieline.cli(["show", &connection.to_string()]).stdout
}

/// Names of the connections to the server that are not the tests' own.
fn connections(server: &Server, which: &str) -> String {
    server.ask(&format!(
        "select count(*) from pg_stat_activity where backend_type = 'client backend' \
         and pid <> pg_backend_pid() and {which}"
    ))
}

#[test]
fn many_listen_and_one_server_serves_them_all() {
    let server = Server::start();
    let (tieline, address) = before(&server, Mode::Transaction, 1);
    let mut clients: Vec<_> = (0..8).map(|_| log_in(address)).collect();
    for client in &mut clients {
        client.query("listen news");
    }
    server.ask("notify news, 'first'");
    for client in &mut clients {
        assert_eq!(payload(client), "first");
    }
    let mut other = log_in(address);
    assert_eq!(other.value("select 7"), "7");
    // Those of the fixtures' psql are listed until they have ended.
    for who in ["application_name = 'tieline listener'", "application_name <> 'tieline listener'"] {
        assert!(wait_until(PATIENCE, || connections(&server, who) == "1"), "{who}");
    }
    assert!(wait_until(PATIENCE, || story(&tieline, 1).contains("listens to news by the shared listener")));
    for client in &mut clients {
        client.query("unlisten news");
    }
    server.ask("notify news, 'second'");
    clients.iter_mut().for_each(hears_nothing);
    assert!(wait_until(PATIENCE, || story(&tieline, 1).contains("listens to nothing any more")));
    let gone = || connections(&server, "application_name = 'tieline listener'") == "0";
    assert!(wait_until(PATIENCE, gone), "nobody listens, and the listener is still there");
}

#[test]
fn listen_and_unlisten_count_from_commit_and_not_from_what_was_rolled_back() {
    let server = Server::start();
    let (_tieline, address) = before(&server, Mode::Transaction, 2);
    let mut client = log_in(address);
    for step in ["begin", "listen news", "rollback"] {
        client.query(step);
    }
    server.ask("notify news, 'rolled back'");
    hears_nothing(&mut client);
    for step in ["begin", "listen kept", "savepoint s", "listen undone", "rollback to s", "commit"] {
        client.query(step);
    }
    server.ask("notify undone, 'undone'");
    server.ask("notify kept, 'kept'");
    assert_eq!(payload(&mut client), "kept");
    assert_eq!(client.value("select string_agg(c, ',') from pg_listening_channels() c"), "kept");
    for step in ["begin", "unlisten kept", "rollback"] {
        client.query(step);
    }
    server.ask("notify kept, 'still'");
    assert_eq!(payload(&mut client), "still");
    client.query("begin");
    client.query("unlisten kept");
    server.ask("notify kept, 'not yet undone'");
    assert_eq!(payloads(&client.query("select 1")), Vec::<String>::new(), "within a transaction");
    client.query("commit");
    hears_nothing(&mut client);
    // Statements that fail together, and some that nobody sees.
    client.query("listen one; select 1/0");
    client.query("do $$ begin execute 'listen two'; end $$; listen three");
    assert_eq!(
        client.value("select string_agg(c, ',' order by c) from pg_listening_channels() c"),
        "three,two"
    );
    server.ask("notify two, '2'");
    assert_eq!(payload(&mut client), "2");
    for all in ["unlisten *", "discard all"] {
        client.query("listen one; listen two");
        client.query(all);
        server.ask("notify one, 'all'");
        hears_nothing(&mut client);
    }
}

#[test]
fn what_a_client_says_itself_it_hears_before_it_is_ready_and_as_its_own() {
    let server = Server::start();
    let (_tieline, address) = before(&server, Mode::Transaction, 2);
    let (mut one, mut other) = (log_in(address), log_in(address));
    one.query("listen news");
    other.query("listen news");
    let kinds = |said: &[Message]| said.iter().map(|message| char::from(message.kind)).collect::<String>();
    for turn in 0..20 {
        let said = one.query("notify news, 'own'");
        assert_eq!(kinds(&said), "CAZ", "turn {turn}");
        assert_eq!(heard(&said[1]).0, process(&one));
        assert_ne!(next(&mut other).0, process(&one), "another's");
        // The next one to use the same server is somebody else.
        let said = other.query("select pg_notify('news', 'others')");
        assert_eq!(kinds(&said), "TDCAZ");
        assert_eq!(heard(&said[3]).0, process(&other));
        let (from, _, payload) = next(&mut one);
        assert!(from != process(&one) && payload == "others");
    }
    let batch = [
        frontend::parse("", "notify news, 'extended'", &[]),
        frontend::bind("", "", &[], 0),
        frontend::execute("", 0),
        frontend::sync(),
    ];
    one.send(&batch.concat()).unwrap();
    assert_eq!(kinds(&one.until(b'Z').unwrap()), "12CAZ");
    // In one go, and of a channel that is new.
    let said = one.query("begin; listen fresh; notify fresh, 'fresh'; notify news, 'known'; commit");
    let mut both = payloads(&said);
    both.sort();
    assert_eq!(both, ["fresh", "known"]);
    assert_eq!(said.last().unwrap().kind, b'Z');
}

#[test]
fn notifications_come_between_queries_and_in_the_order_of_their_commits() {
    let server = Server::start();
    let (_tieline, address) = before(&server, Mode::Transaction, 3);
    let mut client = log_in(address);
    let mut direct = log_in(server.address());
    direct.query("listen news");
    client.query("listen news");
    client.query("begin");
    let mut senders: Vec<_> = (0..2).map(|_| log_in(address)).collect();
    for turn in 0..30 {
        for (sender, conversation) in senders.iter_mut().enumerate() {
            conversation.query(&format!("notify news, '{sender} {turn}'"));
        }
        assert_eq!(payloads(&client.query("select * from numbers")), Vec::<String>::new());
    }
    let said = client.query("commit; ");
    assert_eq!(payloads(&said).len(), 60, "all that came meanwhile, before it is ready");
    let alone = direct.query("select 1");
    assert_eq!(payloads(&said), payloads(&alone));
    // A pipeline is no place for them, and behind it is.
    client
        .send(&[frontend::query("notify news, 'a'"), frontend::query("notify news, 'b'")].concat())
        .unwrap();
    let said = [client.until(b'Z').unwrap(), client.until(b'Z').unwrap()].concat();
    assert_eq!(payloads(&said), ["a", "b"]);
}

#[test]
fn a_listener_that_was_lost_is_replaced_and_its_clients_are_told() {
    let server = Server::start();
    let (_tieline, address) = before(&server, Mode::Transaction, 2);
    let mut client = log_in(address);
    client.query("listen news");
    server.ask(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'tieline listener'",
    );
    let said = client.message().unwrap().expect("a notice");
    assert_eq!((said.kind, said.field(b'C')), (b'N', "01000".into()), "{said:?}");
    server.ask("notify news, 'again'");
    assert_eq!(payload(&mut client), "again");
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn who_does_not_read_what_it_listens_to_is_ended() {
    let server = Server::start();
    let (tieline, address) = before(&server, Mode::Transaction, 2);
    let mut client = log_in(address);
    client.query("listen flood");
    let before = tieline.rss_kib();
    let flood = "select pg_notify('flood', n || repeat('x', 7900)) from generate_series(1, 1000) n";
    let ended = || tieline.log().contains("limit:unread");
    let read = || server.ask("select pg_notification_queue_usage() = 0") == "t";
    for _ in 0..40 {
        server.ask(flood);
        // No more is sent than is read meanwhile, however slow the machine is.
        assert!(wait_until(PATIENCE, || ended() || read()), "{}", tieline.log());
        if ended() {
            break;
        }
    }
    assert!(wait_until(PATIENCE, ended), "{}", tieline.log());
    let grown = tieline.rss_kib().saturating_sub(before);
    assert!(grown < 60 << 10, "{grown} KiB for a client that does not read");
    // What is left of the flood goes to nobody, but goes first.
    assert!(wait_until(PATIENCE, read));
    let mut other = log_in(address);
    other.query("listen calm");
    server.ask("notify calm, 'calm'");
    assert_eq!(payload(&mut other), "calm");
}

#[test]
fn a_channel_is_nobody_elses() {
    for tenancy in [Tenancy::Own, Tenancy::Shared] {
        let server = Server::start();
        let (_tieline, address) = before_as(&server, Mode::Transaction, 1, tenancy);
        let mut ana = Conversation::log_in(address, "ana", "postgres");
        let mut bob = Conversation::log_in(address, "bob", "postgres");
        ana.query("listen secrets");
        bob.query("listen news");
        server.ask("notify secrets, 'hush'");
        server.ask("notify news, 'public'");
        assert_eq!(payload(&mut ana), "hush");
        assert_eq!(payload(&mut bob), "public", "{tenancy:?}");
        // Nor what its own server has heard for the one who held it before.
        ana.query("begin; notify news, 'from ana'; commit");
        assert_eq!(payload(&mut bob), "from ana");
        assert_eq!(bob.value("select string_agg(c, ',') from pg_listening_channels() c"), "news");
        hears_nothing(&mut ana);
        let mut none = Conversation::log_in(address, "bob", "postgres");
        assert_eq!(none.value("select count(*) from pg_listening_channels() c"), "0");
        ana.reset();
        assert_eq!(none.value("select count(*) from pg_listening_channels() c"), "0");
    }
}

#[test]
fn who_keeps_its_server_for_something_else_listens_all_the_same() {
    let server = Server::start();
    let (_tieline, address) = before(&server, Mode::Transaction, 2);
    let mut client = log_in(address);
    client.query("create temp table own (a int); listen news");
    server.ask("notify news, 'one'");
    assert_eq!(payload(&mut client), "one");
    assert_eq!(payloads(&client.query("insert into own values (1); notify news, 'two'")), ["two"]);
    client.query("drop table own");
    server.ask("notify news, 'three'");
    assert_eq!(payload(&mut client), "three");
    assert!(client.is_silent_for(Duration::from_millis(50)));
    client.query("listen more");
    server.ask("notify more, 'four'");
    assert_eq!(payload(&mut client), "four");
    hears_nothing(&mut client);
}

#[test]
fn a_limit_of_the_clients_is_not_meant_for_its_channels() {
    let server = Server::start();
    let (_tieline, address) = before(&server, Mode::Transaction, 1);
    let (mut client, mut other) = (log_in(address), log_in(address));
    client.query("listen \"It's \"\"odd\"\"\"; set statement_timeout = 1; set client_encoding to latin1");
    assert_eq!(other.value("select 1"), "1");
    server.ask("select pg_notify('It''s \"odd\"', 'gr' || chr(252) || 'n')");
    let (_, channel, _) = next(&mut client);
    assert_eq!(channel, "It's \"odd\"");
    server.ask("select pg_notify('It''s \"odd\"', 'gr' || chr(252) || 'n')");
    let said = client.message().unwrap().unwrap();
    assert!(said.body.windows(4).any(|bytes| bytes == b"gr\xfcn"), "in the client's own encoding");
}

#[test]
fn in_session_mode_a_notification_of_its_own_bears_the_clients_number() {
    let server = Server::start();
    let (_tieline, address) = before(&server, Mode::Session, 2);
    let mut client = log_in(address);
    client.query("listen news");
    let said = client.query("notify news");
    assert_eq!(heard(&said[1]).0, process(&client));
    server.ask("notify news, 'other'");
    assert_ne!(next(&mut client).0, process(&client));
}
