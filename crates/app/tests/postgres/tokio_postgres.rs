//! tokio-postgres through Tieline: it pipelines whatever is asked at the same time.

use std::future::Future;
use std::io::Cursor;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, CopyInSink, NoTls};

use crate::house::Server;
use crate::proxied::{Mode, before};

#[test]
fn tokio_postgres_works_in_session_mode() {
    every_thing(Mode::Session, 40);
}

#[test]
fn tokio_postgres_works_in_transaction_mode() {
    every_thing(Mode::Transaction, 3);
}

fn every_thing(mode: Mode, size: usize) {
    let server = Server::start();
    let (_tieline, address) = before(&server, mode, size);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        soon("queries", queries(address)).await;
        soon("prepared", prepared(address)).await;
        soon("pipelined", pipelined(address)).await;
        soon("transactions", transactions(address)).await;
        soon("portals", portals(address)).await;
        soon("copies", copies(address)).await;
        soon("cancels", cancels(address)).await;
        soon("crowds", crowds(address)).await;
    });
}

async fn soon(what: &str, thing: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(60), thing).await.unwrap_or_else(|_| panic!("{what}: stuck"));
}

/// A client whose connection is driven beside the test.
#[allow(clippy::disallowed_methods, reason = "the driver's own connection has nobody else to run it")]
async fn connect(address: SocketAddr) -> Client {
    let mut config = Config::new();
    config.host(address.ip().to_string()).port(address.port()).user("postgres").dbname("postgres");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn queries(address: SocketAddr) {
    let client = connect(address).await;
    let row = client.query_one("select $1::int + 1, $2::text, null::text", &[&41, &"ä€😀"]).await.unwrap();
    assert_eq!(
        (row.get::<_, i32>(0), row.get::<_, &str>(1), row.get::<_, Option<&str>>(2)),
        (42, "ä€😀", None)
    );
    assert_eq!(client.query("select n, t from numbers", &[]).await.unwrap().len(), 1000);
    assert_eq!(client.simple_query("select 1; select 2").await.unwrap().len(), 6);
    let error = client.query("select 1/0", &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
    assert_eq!(client.query_one("select 7", &[]).await.unwrap().get::<_, i32>(0), 7);
}

async fn prepared(address: SocketAddr) {
    // Both call their statements s0, s1, and so on.
    let (one, other) = (connect(address).await, connect(address).await);
    let twice = one.prepare("select $1::int * 2").await.unwrap();
    let joined = other.prepare("select $1::text || 'x'").await.unwrap();
    for turn in 0..30 {
        assert_eq!(one.query_one(&twice, &[&turn]).await.unwrap().get::<_, i32>(0), turn * 2);
        let text = other.query_one(&joined, &[&turn.to_string()]).await.unwrap();
        assert_eq!(text.get::<_, String>(0), format!("{turn}x"));
    }
}

async fn pipelined(address: SocketAddr) {
    let client = connect(address).await;
    let statement = client.prepare("select $1::int, repeat('x', 3000)").await.unwrap();
    let numbers: Vec<i32> = (0..200).collect();
    let asked = numbers.iter().map(|number| async {
        let row = client.query_one(&statement, &[number]).await?;
        Ok::<i32, tokio_postgres::Error>(row.get(0))
    });
    assert_eq!(try_join_all(asked).await.unwrap(), numbers);
    // One that fails among others takes none of their answers.
    let (first, second, third) = tokio::join!(
        client.query_one("select 1", &[]),
        client.query_one("select 1/0", &[]),
        client.query_one("select 3", &[])
    );
    assert!(second.is_err());
    assert_eq!((first.unwrap().get::<_, i32>(0), third.unwrap().get::<_, i32>(0)), (1, 3));
}

async fn transactions(address: SocketAddr) {
    let mut client = connect(address).await;
    let transaction = client.transaction().await.unwrap();
    transaction.execute("insert into dest values ($1, $2)", &[&1, &"kept"]).await.unwrap();
    transaction.commit().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    transaction.execute("insert into dest values (2, 'lost')", &[]).await.unwrap();
    drop(transaction); // it rolls back
    let left = client.query_one("select count(*) from dest", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 1);
    client.execute("delete from dest", &[]).await.unwrap();
}

async fn portals(address: SocketAddr) {
    let mut client = connect(address).await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("select n from numbers order by n", &[]).await.unwrap();
    let mut total = 0;
    loop {
        let rows = transaction.query_portal(&portal, 300).await.unwrap();
        total += rows.len();
        if rows.len() < 300 {
            break;
        }
    }
    assert_eq!(total, 1000);
    transaction.commit().await.unwrap();
}

async fn copies(address: SocketAddr) {
    let client = connect(address).await;
    let sink: CopyInSink<Cursor<Vec<u8>>> = client.copy_in("copy dest from stdin").await.unwrap();
    let mut sink = pin!(sink);
    for key in 0..2000 {
        sink.send(Cursor::new(format!("{key}\tvalue {key}\n").into_bytes())).await.unwrap();
    }
    assert_eq!(sink.as_mut().finish().await.unwrap(), 2000);
    let stream = client.copy_out("copy dest to stdout").await.unwrap();
    let pieces: Vec<_> = stream.map(|piece| piece.map(|bytes| bytes.len())).try_collect().await.unwrap();
    assert_eq!(pieces.len(), 2000);
    client.execute("delete from dest", &[]).await.unwrap();
}

async fn cancels(address: SocketAddr) {
    let client = connect(address).await;
    let token = client.cancel_token();
    // Before it runs there is nothing to cancel; and once is enough.
    let seen = connect(address).await;
    let sleeps = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and \
                  wait_event = 'PgSleep'";
    let stop = async {
        while seen.query_one(sleeps, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        token.cancel_query(NoTls).await.unwrap();
        std::future::pending::<()>().await;
    };
    let asleep = tokio::select! {
        asleep = client.simple_query("select pg_sleep(60)") => asleep,
        () = stop => unreachable!("it goes on and on"),
    };
    assert_eq!(asleep.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(client.query_one("select 7", &[]).await.unwrap().get::<_, i32>(0), 7);
}

async fn crowds(address: SocketAddr) {
    let work = |at: i32| async move {
        let client = connect(address).await;
        for turn in 0..20 {
            let row = client.query_one("select $1::int * 1000 + $2::int", &[&at, &turn]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), at * 1000 + turn);
        }
    };
    futures_util::future::join_all((0..20).map(work)).await;
}
