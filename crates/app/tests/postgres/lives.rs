//! What no single conversation shows: many clients on few servers, masses of bytes, servers and clients that
//! go.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use tieline_testkit::pg::{Conversation, frontend};
use tieline_testkit::{PATIENCE, Tieline, wait_until};

use crate::house::Server;
use crate::proxied::{Mode, before, wait_for_waiting};

/// A megabyte of something that SQL can hold.
const LARGE: usize = 1 << 20;

fn pooled(size: usize) -> (Server, Tieline, SocketAddr) {
    let server = Server::start();
    let (tieline, address) = before(&server, Mode::Transaction, size);
    (server, tieline, address)
}

fn client(address: SocketAddr) -> Conversation {
    Conversation::log_in(address, "postgres", "postgres")
}

/// Connections that the server has from Tieline.
fn servers(server: &Server) -> usize {
    let sql = "select count(*) from pg_stat_activity where backend_type = 'client backend' \
               and pid <> pg_backend_pid()";
    server.ask(sql).parse().unwrap()
}

#[test]
fn many_clients_never_make_more_servers_than_the_pool_may_have() {
    let (server, _tieline, address) = pooled(3);
    server.postgres.pgbench(server.address(), &["-i", "-q"]).expect("pgbench -i");
    let own = server.ask("select pg_backend_pid()");
    assert!(wait_until(PATIENCE, || servers(&server) == 0));
    thread::scope(|scope| {
        let load = scope
            .spawn(|| server.postgres.pgbench(address, &["-n", "-S", "-c", "40", "-j", "2", "-t", "150"]));
        let mut most = 0;
        while !load.is_finished() {
            most = most.max(server_count(server.address(), &own));
        }
        load.join().unwrap().expect("pgbench");
        // They rest; nobody may have looked before.
        most = most.max(server_count(server.address(), &own));
        assert!((1..=3).contains(&most), "{most} servers");
    });
}

/// [`servers`] as seen over a connection of its own, from any thread; such ones are left out, and that of
/// process `own`.
fn server_count(address: SocketAddr, own: &str) -> usize {
    let parameters = [("user", "postgres"), ("database", "postgres"), ("application_name", "counts")];
    let mut counts = Conversation::log_in_with(address, &parameters);
    let sql = "select count(*) from pg_stat_activity where backend_type = 'client backend' \
               and application_name <> 'counts'";
    counts.value(&format!("{sql} and pid <> {own}")).parse().unwrap()
}

#[test]
fn a_hundred_megabytes_of_queries_are_taken_before_an_answer_is_read() {
    let (_server, _tieline, address) = pooled(2);
    let mut client = client(address);
    let query = frontend::query(&format!("select length('{}')", "x".repeat(LARGE)));
    for _ in 0..100 {
        client.send(&query).unwrap();
    }
    for _ in 0..100 {
        let said = client.until(b'Z').unwrap();
        assert_eq!(said[1].columns(), [Some(LARGE.to_string())]);
    }
}

#[test]
fn a_reader_that_stops_costs_no_memory_and_gets_everything_in_the_end() {
    let (_server, tieline, address) = pooled(2);
    let mut slow = client(address);
    let before = tieline.rss_kib();
    slow.send(&frontend::query("copy (select repeat('x', 10000) from generate_series(1, 20000)) to stdout"))
        .unwrap();
    let mut other = client(address);
    for _ in 0..200 {
        assert_eq!(other.value("select 7"), "7");
    }
    let grown = tieline.rss_kib().saturating_sub(before);
    assert!(grown < 30 << 10, "{grown} KiB for a reader that stopped");
    let said = slow.until(b'Z').unwrap();
    assert_eq!(said.iter().filter(|message| message.kind == b'd').count(), 20_000);
}

#[test]
fn a_copy_that_fails_in_its_first_row_may_go_on_for_long_and_the_next_query_is_answered() {
    let (server, tieline, address) = pooled(2);
    let mut client = client(address);
    client.query("insert into dest values (1, 'x')");
    let before = tieline.rss_kib();
    client.send(&frontend::query("copy dest from stdin")).unwrap();
    client.until(b'G').unwrap();
    client.send(&frontend::copy_data(b"1\ty\n")).unwrap();
    let row = frontend::copy_data(format!("2\t{}\n", "z".repeat(60_000)).as_bytes());
    for _ in 0..1000 {
        client.send(&row).unwrap();
    }
    client.send(&frontend::copy_done()).unwrap();
    let said = client.until(b'Z').unwrap();
    assert_eq!(said[0].field(b'C'), "23505", "{said:?}");
    assert_eq!(client.value("select count(*) from dest"), "1");
    let grown = tieline.rss_kib().saturating_sub(before);
    assert!(grown < 30 << 10, "{grown} KiB for a copy that failed");
    assert_eq!(server.ask("select count(*) from dest"), "1");
}

#[test]
fn an_endless_pipeline_does_not_starve_a_neighbour() {
    let (_server, _tieline, address) = pooled(1);
    let greedy = client(address);
    let mut reads = greedy.stream().try_clone().unwrap();
    let mut writes = greedy.stream().try_clone().unwrap();
    let batch = [
        frontend::parse("", "select 1", &[]),
        frontend::bind("", "", &[], 0),
        frontend::execute("", 0),
        frontend::sync(),
    ]
    .concat()
    .repeat(50);
    thread::scope(|scope| {
        let writer = scope.spawn(move || while writes.write_all(&batch).is_ok() {});
        let reader = scope.spawn(move || {
            let mut place = [0; 64 << 10];
            while reads.read(&mut place).is_ok_and(|length| length > 0) {}
        });
        let mut neighbour = client(address);
        for _ in 0..20 {
            assert_eq!(neighbour.value("select 7"), "7");
        }
        let _ = greedy.stream().shutdown(std::net::Shutdown::Both); // ends both threads
        writer.join().unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn who_waits_for_a_server_can_be_cancelled() {
    let (_server, tieline, address) = pooled(1);
    let mut holder = client(address);
    holder.query("begin");
    let mut waiting = client(address);
    waiting.send(&frontend::query("select 1")).unwrap();
    wait_for_waiting(&tieline, "server", 1); // before that there is nothing to cancel
    let mut side = Conversation::connect(address);
    side.send(&frontend::cancel(waiting.key_data())).unwrap();
    assert!(side.message().unwrap().is_none());
    let said = waiting.until(b'Z').unwrap();
    assert_eq!((said.len(), said[0].field(b'C').as_str()), (2, "57014"), "{said:?}");
    holder.query("commit");
    assert_eq!(waiting.value("select 7"), "7");
}

#[test]
fn who_waits_and_leaves_is_served_no_more() {
    let (server, tieline, address) = pooled(1);
    let mut holder = client(address);
    holder.query("begin");
    for _ in 0..5 {
        let mut waiting = client(address);
        waiting.send(&frontend::query("insert into dest select max(k) + 1, 'x' from dest")).unwrap();
        waiting.reset();
    }
    let mut last = client(address);
    last.send(&frontend::query("select 7")).unwrap();
    // Before that somebody may still be taken for one who waits.
    assert!(wait_until(PATIENCE, || tieline.get("/api/v1/connections")["total"] == 2));
    wait_for_waiting(&tieline, "server", 1);
    holder.query("commit");
    assert_eq!(last.until(b'Z').unwrap()[1].columns(), [Some("7".into())]);
    assert_eq!(server.ask("select count(*) from dest"), "0");
}

#[test]
fn waiting_clients_are_served_in_the_order_in_which_they_came() {
    let (server, tieline, address) = pooled(1);
    server.ask("create table arrivals (at serial, who int)");
    let mut holder = client(address);
    holder.query("begin");
    let mut waiting = Vec::new();
    for who in 0..8 {
        let mut client = client(address);
        client.send(&frontend::query(&format!("insert into arrivals (who) values ({who})"))).unwrap();
        waiting.push(client);
        wait_for_waiting(&tieline, "server", who + 1);
    }
    holder.query("commit");
    for client in &mut waiting {
        client.until(b'Z').unwrap();
    }
    assert_eq!(server.ask("select array_agg(who order by at) from arrivals"), "{0,1,2,3,4,5,6,7}");
}

#[test]
fn a_server_that_ends_at_rest_is_noticed_by_nobody() {
    let (server, _tieline, address) = pooled(2);
    let mut client = client(address);
    for _ in 0..5 {
        assert_eq!(client.value("select 7"), "7");
        let others = "where pid <> pg_backend_pid() and backend_type = 'client backend'";
        server.ask(&format!("select pg_terminate_backend(pid) from pg_stat_activity {others}"));
        assert!(wait_until(PATIENCE, || servers(&server) == 0));
    }
    assert_eq!(client.value("select 7"), "7");
}

#[test]
fn servers_that_ended_at_rest_once_are_not_thought_to_do_so_by_habit() {
    let (server, _tieline, address) = pooled(1);
    let mut client = client(address);
    assert_eq!(client.value("select 7"), "7");
    thread::sleep(Duration::from_millis(300));
    let others = "where pid <> pg_backend_pid() and backend_type = 'client backend'";
    server.ask(&format!("select pg_terminate_backend(pid) from pg_stat_activity {others}"));
    assert!(wait_until(PATIENCE, || servers(&server) == 0));
    let first = client.value("select pg_backend_pid()");
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(1_500));
        assert_eq!(client.value("select pg_backend_pid()"), first);
    }
}

#[test]
fn a_server_that_ends_within_a_transaction_is_told_of_with_its_own_words() {
    let (server, _tieline, address) = pooled(2);
    let mut client = client(address);
    client.query("begin");
    server.ask("select pg_terminate_backend(pid) from pg_stat_activity where state = 'idle in transaction'");
    let said = client.until(b'Z').unwrap();
    assert_eq!(said.first().map(|error| error.field(b'C')).as_deref(), Some("57P01"), "{said:?}");
    assert_eq!(Conversation::log_in(address, "postgres", "postgres").value("select 7"), "7");
}

#[test]
fn a_client_that_vanishes_leaves_its_server_to_the_next() {
    let (server, _tieline, address) = pooled(1);
    let mut first = client(address);
    let pid = first.value("select pg_backend_pid()");
    first.query("begin");
    first.query("insert into dest values (1, 'x')");
    first.reset();
    let mut second = client(address);
    assert_eq!(second.value("select count(*) from dest"), "0");
    assert_eq!(second.value("select pg_backend_pid()"), pid, "a server was thrown away");
    assert_eq!(servers(&server), 1);
}
