//! Clients that take, and give nothing back: memory, and servers.

use std::io::Write;
use std::time::Duration;

use tieline_testkit::pg::{Conversation, frontend};
use tieline_testkit::{PATIENCE, wait_until};

use crate::house::Server;
use crate::pooling::tieline;

fn log_in(at: std::net::SocketAddr) -> Conversation {
    Conversation::log_in(at, "postgres", "postgres")
}

#[test]
fn whoever_talks_and_never_listens_is_listened_to_no_more_and_costs_no_memory() {
    let server = Server::start();
    let (tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1 }");
    let mut client = log_in(address);
    let before = tieline.rss_kib();
    let syncs = frontend::sync().repeat(10_000);
    let mut stream = client.stream().try_clone().unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut written = 0;
    // Until nothing more is taken; far more than any socket holds.
    while written < 64 << 20 {
        match stream.write(&syncs[written % syncs.len()..]) {
            Ok(length) => written += length,
            Err(_) => break,
        }
    }
    let grown = tieline.rss_kib().saturating_sub(before);
    assert!(written < 64 << 20, "all was taken");
    assert!(grown < 8 << 10, "{grown} KiB for answers that nobody reads");
    // What was taken is answered, no more and no less.
    let asked = written / frontend::sync().len();
    for _ in 0..asked {
        assert_eq!(client.message().unwrap().unwrap().kind, b'Z');
    }
}

#[test]
fn statements_that_were_closed_cost_no_memory() {
    let server = Server::start();
    let (tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1 }");
    let mut client = log_in(address);
    let before = tieline.rss_kib();
    let long = "x".repeat(1 << 20);
    for transaction in ["", "begin"] {
        if !transaction.is_empty() {
            client.query(transaction);
        }
        for number in 0..30 {
            let text = format!("select {number} /* {transaction} {long} */");
            let batch = [frontend::parse("s", &text, &[]), frontend::close(b'S', "s"), frontend::sync()];
            client.send(&batch.concat()).unwrap();
            let said = client.until(b'Z').unwrap();
            assert_eq!(said.iter().map(|message| message.kind).collect::<Vec<_>>(), b"13Z", "{said:?}");
        }
    }
    let grown = tieline.rss_kib().saturating_sub(before);
    assert!(grown < 48 << 10, "{grown} KiB for statements that were closed");
    // The one that keeps them has as few.
    client.query("rollback");
    let kept = "select sum(length(statement)) < 20000000 from pg_prepared_statements";
    assert_eq!(client.value(kept), "t");
}

#[test]
fn names_without_end_are_refused() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1 }");
    let mut client = log_in(address);
    // It is refused at its head, and closed perhaps before all of it is sent.
    let _ = client.send(&[frontend::parse(&"n".repeat(1 << 20), "", &[]), frontend::sync()].concat());
    let said = client.until(b'E').unwrap();
    assert_eq!(said[0].field(b'C'), "08P01");
    assert!(client.message().unwrap().is_none());
    let mut client = log_in(address);
    // Nor are they free of charge where there is no text.
    let batch = |batch: usize| {
        let names = (0..1_000).map(|number| frontend::parse(&format!("{batch:0500}{number:0500}"), "", &[]));
        names.chain([frontend::sync()]).collect::<Vec<_>>().concat()
    };
    let refused = (0..100).map(batch).find_map(|batch| {
        client.send(&batch).unwrap();
        client.until(b'Z').unwrap().into_iter().find(|message| message.kind == b'E')
    });
    assert!(refused.unwrap().field(b'M').contains("named statements of a client"));
}

#[test]
fn who_is_owed_nothing_holds_no_server() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1 }");
    let (mut idle, mut other) = (log_in(address), log_in(address));
    let parse = |name: &str| frontend::parse(name, "select 'known'", &[]);
    idle.send(&[parse("one"), frontend::sync()].concat()).unwrap();
    idle.until(b'Z').unwrap();
    // The server knows the text: it is not asked, and nobody waits for it.
    idle.send(&[parse("two"), frontend::flush()].concat()).unwrap();
    assert_eq!(idle.message().unwrap().unwrap().kind, b'1');
    assert_eq!(other.value("select 1"), "1");
    idle.send(&[frontend::close(b'S', "two"), parse("three")].concat()).unwrap();
    assert_eq!(idle.until(b'1').unwrap().len(), 2);
    assert_eq!(other.value("select 1"), "1");
    // Nor does who says only half of what it wants.
    idle.send(&frontend::query("select 2")[..9]).unwrap();
    assert_eq!(other.value("select 1"), "1");
    idle.send(&frontend::query("select 2")[9..]).unwrap();
    let said = idle.until(b'Z').unwrap();
    assert_eq!(said[1].columns(), [Some("2".into())], "{said:?}");
}

#[test]
fn who_waits_while_there_is_no_server_may_be_cancelled_and_may_go() {
    let mut server = Server::start();
    let (tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 2 }");
    let (mut waits, mut goes) = (log_in(address), log_in(address));
    server.postgres.process().kill_all();
    for client in [&mut waits, &mut goes] {
        client.send(&frontend::query("select 1")).unwrap();
    }
    let waiting = || {
        let rows = tieline.get("/api/v1/connections?filter=stage%3Dacquire&limit=100");
        rows["connections"].as_array().map_or(0, Vec::len)
    };
    assert!(wait_until(PATIENCE, || waiting() == 2));
    let mut request = Conversation::connect(address);
    request.send(&frontend::cancel(waits.key_data())).unwrap();
    let said = waits.until(b'Z').unwrap();
    assert_eq!(said[0].field(b'C'), "57014", "{said:?}");
    goes.reset();
    assert!(wait_until(PATIENCE, || waiting() == 0), "it is waited for in the name of one who is gone");
}

#[test]
fn who_has_only_begun_a_message_holds_no_server() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1 }");
    let mut other = log_in(address);
    let messages = [
        (frontend::query("select 2"), vec![]),
        (frontend::parse("", "select 2", &[]), frontend::sync()),
        (frontend::bind("", "", &[Some("longer than its names")], 0), frontend::sync()),
        (frontend::describe(b'S', ""), frontend::sync()),
        (frontend::execute("", 0), frontend::sync()),
        (frontend::close(b'S', "none"), frontend::sync()),
        (frontend::function_call(1598, &[]), vec![]),
    ];
    for (message, rest) in messages {
        // From nothing, and behind what is answered with a server.
        for before in [vec![], frontend::query("select 1")] {
            let mut client = log_in(address);
            let cut = message.len() - 1;
            client.send(&[&before, &message[..cut]].concat()).unwrap();
            if !before.is_empty() {
                client.until(b'Z').unwrap();
            }
            assert_eq!(other.value("select 1"), "1", "while {message:?} has begun");
            client.send(&[&message[cut..], &rest].concat()).unwrap();
            client.until(b'Z').unwrap();
            assert_eq!(client.value("select 3"), "3");
        }
    }
}
