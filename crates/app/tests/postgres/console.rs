//! The console: PgBouncer's commands, answered as PgBouncer answers them.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tieline_testkit::pg::{Conversation, Message, frontend};
use tieline_testkit::{PATIENCE, PgBouncer, Postgres, TcpServer, Tieline, wait_until};

/// A server, and Tieline before it with a console: `admin` may give orders there, and `stats` may look.
struct House {
    tieline: Tieline,
    address: SocketAddr,
    postgres: Postgres,
}

impl House {
    fn open(pool: &str) -> House {
        let postgres = Postgres::start();
        let tieline = Tieline::start(&config(&postgres, pool, "{ admin = \"admin\", stats = [\"stats\"] }"));
        let address = tieline.listener_address("db");
        House { tieline, address, postgres }
    }

    fn console(&self) -> Conversation {
        Conversation::log_in(self.address, "admin", "pgbouncer")
    }

    fn client(&self) -> Conversation {
        Conversation::log_in(self.address, "postgres", "postgres")
    }

    /// How many backends serve us.
    fn backends(&self) -> String {
        let ours = "select count(*) from pg_stat_activity where backend_type = 'client backend' \
                    and pid <> pg_backend_pid()";
        self.postgres.query(ours)
    }
}

fn config(postgres: &Postgres, pool: &str, console: &str) -> String {
    let endpoint = postgres.address();
    format!(
        "[server]\nworkers = 2\n\
         [listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
         console = {console}\n\
         [[listener.db.route]]\ndatabase = [\"postgres\", \"template1\"]\nupstream = \"pg\"\n\
         access = \"public\"\n\
         [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{endpoint}\"]\npool = {pool}\n\
         timeouts = {{ acquire = \"20s\" }}\n"
    )
}

/// Names and types of the columns that `sql` shows.
fn columns(console: &mut Conversation, sql: &str) -> Vec<(String, String)> {
    let said = console.query(sql);
    let description =
        said.iter().find(|message| message.kind == b'T').unwrap_or_else(|| panic!("{sql}: {said:?}"));
    let text = description.to_string();
    let columns = text.split(' ').filter_map(|part| part.split_once('(')?.0.split_once(':'));
    columns.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// The rows that `sql` shows, each by the names of its columns.
fn rows(console: &mut Conversation, sql: &str) -> Vec<BTreeMap<String, String>> {
    let names: Vec<String> = columns(console, sql).into_iter().map(|(name, _)| name).collect();
    let said = console.query(sql);
    let cells = |row: &Message| row.columns().into_iter().map(Option::unwrap_or_default);
    let row = |row: &Message| names.iter().cloned().zip(cells(row)).collect();
    said.iter().filter(|message| message.kind == b'D').map(row).collect()
}

/// The row of `sql` in which these columns have these values.
fn row(console: &mut Conversation, sql: &str, wanted: &[(&str, &str)]) -> BTreeMap<String, String> {
    let all = rows(console, sql);
    let fits = |row: &&BTreeMap<String, String>| wanted.iter().all(|(name, value)| row[*name] == *value);
    all.iter().find(fits).unwrap_or_else(|| panic!("{wanted:?} not in {all:#?}")).clone()
}

/// That `sql` is done.
#[track_caller]
fn done(console: &mut Conversation, sql: &str) {
    let said = console.query(sql);
    assert!(said.iter().all(|message| message.kind != b'E'), "{sql}: {said:?}");
}

/// What is said against `sql`: its SQLSTATE, and the sentence.
#[track_caller]
fn refused(console: &mut Conversation, sql: &str) -> (String, String) {
    let said = console.query(sql);
    let error = said.iter().find(|message| message.kind == b'E').unwrap_or_else(|| panic!("{sql}: {said:?}"));
    (error.field(b'C'), error.field(b'M'))
}

/// The tables that PgBouncer 1.18, which the distribution has, shows too.
const TABLES: [&str; 18] = [
    "SOCKETS",
    "ACTIVE_SOCKETS",
    "DNS_HOSTS",
    "DNS_ZONES",
    "MEM",
    "VERSION",
    "POOLS",
    "CLIENTS",
    "SERVERS",
    "STATS",
    "STATS_TOTALS",
    "STATS_AVERAGES",
    "TOTALS",
    "DATABASES",
    "USERS",
    "CONFIG",
    "LISTS",
    "CLIENT_ENCODING",
];

/// What has another name since (1.24).
const RENAMED: [(&str, &str); 1] = [("reserve_pool", "reserve_pool_size")];

/// What later versions have besides, up to 1.25, and what is ours at the end of two tables.
const SINCE: [&str; 31] = [
    "load_balance_hosts",
    "replication",
    "prepared_statements",
    "id",
    "server_lifetime",
    "max_client_connections",
    "current_client_connections",
    "pool_size",
    "reserve_pool_size",
    "max_user_connections",
    "current_connections",
    "max_user_client_connections",
    "total_server_assignment_count",
    "total_client_parse_count",
    "total_server_parse_count",
    "total_bind_count",
    "total_client_login_count",
    "avg_server_assignment_count",
    "avg_client_parse_count",
    "avg_server_parse_count",
    "avg_bind_count",
    "avg_client_login_count",
    "server_assignment_count",
    "client_parse_count",
    "server_parse_count",
    "bind_count",
    "client_login_count",
    "endpoint",
    "listener",
    "route",
    "wanted",
];

#[test]
fn columns_have_pgbouncers_names_types_and_order() {
    let house = House::open("{ size = 5 }");
    let database = format!("postgres = host=127.0.0.1 port={}", house.postgres.address().port());
    let bouncer = PgBouncer::start(&[&database], &[("admin_users", "admin")], &["\"admin\" \"\""]);
    let (mut theirs, mut ours) =
        (Conversation::log_in(bouncer.address(), "admin", "pgbouncer"), house.console());
    for table in TABLES {
        let sql = format!("SHOW {table}");
        let (theirs, ours) = (columns(&mut theirs, &sql), columns(&mut ours, &sql));
        let renamed = |name: &str| {
            let now = RENAMED.iter().find(|(then, _)| *then == name);
            now.map_or(name, |(_, now)| now).to_owned()
        };
        let mut wanted = theirs.iter().map(|(name, kind)| (renamed(name), kind.clone())).peekable();
        for column in &ours {
            if wanted.next_if_eq(column).is_none() {
                assert!(
                    SINCE.contains(&column.0.as_str()),
                    "{table}: {column:?} is not PgBouncer's: {theirs:?}"
                );
            }
        }
        assert_eq!(wanted.next(), None, "{table}: {ours:?}");
    }
    // What monitoring reads by its name.
    let lists = |console: &mut Conversation| -> Vec<String> {
        rows(console, "SHOW LISTS").iter().map(|row| row["list"].clone()).collect()
    };
    let (theirs, ours) = (lists(&mut theirs), lists(&mut ours));
    assert!(theirs.iter().all(|name| ours.contains(name)), "{theirs:?} {ours:?}");
}

/// What exporters for Prometheus read of each table, all of it numbers.
const READ: [(&str, &str); 4] = [
    (
        "SHOW STATS",
        "total_query_count total_query_time total_received total_sent total_wait_time total_xact_count \
         total_xact_time total_server_assignment_count avg_query_count avg_query_time avg_recv avg_sent \
         avg_wait_time avg_xact_count avg_xact_time",
    ),
    (
        "SHOW POOLS",
        "cl_active cl_active_cancel_req cl_waiting cl_waiting_cancel_req sv_active sv_active_cancel \
         sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us",
    ),
    (
        "SHOW DATABASES",
        "port pool_size min_pool_size reserve_pool_size max_connections current_connections \
         max_client_connections current_client_connections paused disabled",
    ),
    ("SHOW MEM", "size used free memtotal"),
];

#[test]
fn what_exporters_read_are_numbers_by_their_names() {
    let house = House::open("{ size = 5 }");
    let (mut client, mut console) = (house.client(), house.console());
    client.query("select 1");
    let is_number = |text: &str| text.parse::<f64>().is_ok();
    for (sql, names) in READ {
        let all = rows(&mut console, sql);
        assert!(!all.is_empty(), "{sql}");
        for (row, name) in all.iter().flat_map(|row| names.split(' ').map(move |name| (row, name))) {
            assert!(row.get(name).is_some_and(|text| is_number(text)), "{sql}: {name} in {row:?}");
        }
    }
    let lists = rows(&mut console, "SHOW LISTS");
    for name in
        ["databases", "users", "pools", "free_clients", "used_clients", "login_clients", "free_servers"]
    {
        assert!(lists.iter().any(|row| row["list"] == name && is_number(&row["items"])), "{name}: {lists:?}");
    }
    let config = rows(&mut console, "SHOW CONFIG");
    for key in ["max_client_conn", "max_user_connections"] {
        assert!(config.iter().any(|row| row["key"] == key && is_number(&row["value"])), "{key}: {config:?}");
    }
    assert!(row(&mut console, "SHOW VERSION", &[])["version"].starts_with("PgBouncer 1."));
    // Nobody has any here.
    assert!(rows(&mut console, "SHOW PEERS").is_empty() && rows(&mut console, "SHOW PEER_POOLS").is_empty());
}

#[test]
fn words_and_errors_are_pgbouncers() {
    let house = House::open("{ size = 5 }");
    let bouncer = PgBouncer::start(&["a = host=127.0.0.1"], &[("admin_users", "admin")], &["\"admin\" \"\""]);
    let (mut theirs, mut ours) =
        (Conversation::log_in(bouncer.address(), "admin", "pgbouncer"), house.console());
    let kinds_and_text = |said: Vec<Message>| -> Vec<(u8, String, String)> {
        let told = |message: &Message| matches!(message.kind, b'C' | b'E' | b'N' | b'Z');
        let told = said.iter().filter(|message| told(message));
        told.map(|it| (it.kind, it.field(b'C'), it.field(b'M'))).collect()
    };
    for sql in [
        "select 1",
        "SHOW NOTHING",
        "RESUME",
        "PAUSE",
        "PAUSE",
        "RESUME",
        "RECONNECT",
        "DISABLE a",
        "ENABLE a",
        "set client_encoding = 'x'",
        "SHOW datestyle",
        "show  pools ;",
        "KILL a",
        "RESUME a",
        "WAIT_CLOSE a",
        "PAUSE a",
        "PAUSE a",
        "PAUSE pgbouncer",
        "RESUME a",
        "RESUME nowhere",
    ] {
        let (theirs, ours) = (theirs.query(sql), ours.query(sql));
        assert_eq!(kinds_and_text(ours), kinds_and_text(theirs), "{sql}");
    }
    let help = |console: &mut Conversation| console.query("SHOW HELP").iter().any(|it| it.kind == b'N');
    assert!(help(&mut theirs) && help(&mut ours));
}

#[test]
fn psql_sees_who_is_there() {
    let house = House::open("{ size = 5 }");
    let ask =
        |sql: &str| house.postgres.psql(house.address, "tieline", &["-U", "admin", "-c", sql]).expect(sql);
    assert!(ask("SHOW VERSION;").starts_with("PgBouncer 1."), "{}", ask("SHOW VERSION;"));
    let parameters = [("user", "postgres"), ("database", "postgres"), ("application_name", "till 3")];
    let mut client = Conversation::log_in_with(house.address, &parameters);
    client.query("begin");
    let backend = client.value("select pg_backend_pid()");
    let mut console = house.console();
    let client_row = row(&mut console, "SHOW CLIENTS", &[("application_name", "till 3")]);
    assert_eq!((&*client_row["state"], &*client_row["remote_pid"]), ("active", &*backend));
    assert_eq!(client_row["port"], client.stream().local_addr().unwrap().port().to_string());
    let server = row(&mut console, "SHOW SERVERS", &[("remote_pid", &backend)]);
    assert_eq!((&server["link"], &*server["state"]), (&client_row["ptr"], "active"));
    assert_eq!(server["port"], house.postgres.address().port().to_string());
    let pool = row(&mut console, "SHOW POOLS", &[("database", "postgres"), ("user", "postgres")]);
    assert_eq!((&*pool["cl_active"], &*pool["sv_active"], &*pool["pool_mode"]), ("1", "1", "transaction"));
    client.query("commit");
    let mut state = |sql: &str, name, value| row(&mut console, sql, &[(name, value)])["state"].clone();
    assert!(wait_until(PATIENCE, || state("SHOW SERVERS", "remote_pid", &backend) == "idle"));
    assert!(wait_until(PATIENCE, || state("SHOW CLIENTS", "application_name", "till 3") == "idle"));
    let database = row(&mut console, "SHOW DATABASES", &[("name", "postgres")]);
    assert_eq!((&*database["host"], &*database["pool_size"]), ("127.0.0.1", "5"));
    assert_eq!((&*database["current_connections"], &*database["current_client_connections"]), ("1", "1"));
    drop(client);
    assert!(wait_until(PATIENCE, || rows(&mut console, "SHOW CLIENTS").len() == 1));
}

#[test]
fn prepared_statements_and_sockets_are_counted() {
    let house = House::open("{ size = 5 }");
    let (mut client, mut console) = (house.client(), house.console());
    let port = client.stream().local_addr().unwrap().port().to_string();
    let batch = [frontend::parse("one", "select 1", &[]), frontend::parse("two", "select 2", &[])];
    client.send(&[batch.concat(), frontend::sync()].concat()).unwrap();
    client.until(b'Z').unwrap();
    let mut counted = |sql: &str, name: &str, value: &str| {
        let fits = |row: &BTreeMap<String, String>| row[name] == value && row["prepared_statements"] == "2";
        wait_until(PATIENCE, || rows(&mut console, sql).iter().any(fits))
    };
    assert!(counted("SHOW CLIENTS", "port", &port));
    assert!(counted("SHOW SERVERS", "type", "S"));
    assert!(counted("SHOW SOCKETS", "port", &port));
    client.query("begin");
    let active = rows(&mut console, "SHOW ACTIVE_SOCKETS");
    let of =
        |kind: &str| active.iter().filter(|row| row["type"] == kind && row["database"] == "postgres").count();
    assert_eq!((of("C"), of("S")), (1, 1), "{active:?}");
    assert_eq!(row(&mut console, "SHOW MEM", &[("name", "prepared_statement_cache")])["used"], "2");
    let (code, said) = refused(&mut console, "SHOW FDS");
    assert!(!code.is_empty() && said.contains("tieline stop"), "{said}");
}

#[test]
fn the_shared_listener_is_a_server_that_nothing_waits_for() {
    let house = House::open("{ size = 1 }");
    let (mut client, mut console) = (house.client(), house.console());
    client.query("listen news");
    let own = "select pid from pg_stat_activity where application_name = 'tieline listener'";
    let process = house.postgres.query(own);
    let shown = row(&mut console, "SHOW SERVERS", &[("application_name", "tieline listener")]);
    assert_eq!((&*shown["remote_pid"], &*shown["state"], &*shown["link"]), (&*process, "active", ""));
    assert_eq!((&*shown["database"], &*shown["user"]), ("postgres", "postgres"));
    assert_eq!(shown["port"], house.postgres.address().port().to_string());
    let sockets = rows(&mut console, "SHOW SOCKETS");
    assert!(sockets.iter().any(|row| row["application_name"] == "tieline listener"), "{sockets:?}");
    // It is none of the pool's.
    let pool = row(&mut console, "SHOW POOLS", &[("database", "postgres")]);
    assert_eq!((&*pool["sv_active"], &*pool["sv_idle"]), ("0", "1"));
    done(&mut console, "PAUSE postgres");
    done(&mut console, "RESUME postgres");
    house.postgres.query("notify news, 'still'");
    assert_eq!(client.message().unwrap().unwrap().kind, b'A');
    drop(client);
    assert!(wait_until(PATIENCE, || rows(&mut console, "SHOW SERVERS")
        .iter()
        .all(|row| row["application_name"] != "tieline listener")));
}

#[test]
fn requests_to_cancel_are_counted_while_they_are_on_their_way() {
    let postgres = Postgres::start();
    let (to, released) = (postgres.address(), Arc::new(AtomicBool::new(false)));
    let release = released.clone();
    // Passes everything on, requests to cancel only when it is told to.
    let wire = TcpServer::scripted(move |mut client| {
        let mut first = [0; 8];
        client.read_exact(&mut first)?;
        if first == frontend::cancel(&[0; 8])[..8] {
            let _ = wait_until(PATIENCE, || release.load(Ordering::Relaxed));
        }
        let mut far = TcpStream::connect(to)?;
        far.write_all(&first)?;
        let (mut back, mut near) = (far.try_clone()?, client.try_clone()?);
        let answering = thread::spawn(move || {
            let _ = io::copy(&mut back, &mut near);
            near.shutdown(Shutdown::Both)
        });
        let _ = io::copy(&mut client, &mut far);
        let _ = (far.shutdown(Shutdown::Write), answering.join());
        Ok(())
    });
    let config = config(&postgres, "{ size = 5 }", "{ admin = \"admin\" }");
    let tieline = Tieline::start(&config.replace(&to.to_string(), &wire.address().to_string()));
    let address = tieline.listener_address("db");
    let mut client = Conversation::log_in(address, "postgres", "postgres");
    let mut console = Conversation::log_in(address, "admin", "pgbouncer");
    client.send(&frontend::query("select pg_sleep(600)")).unwrap();
    let sleeps = "select count(*) from pg_stat_activity where query = 'select pg_sleep(600)' \
                  and state = 'active'";
    assert!(wait_until(PATIENCE, || postgres.query(sleeps) == "1"));
    Conversation::connect(address).send(&frontend::cancel(client.key_data())).unwrap();
    let columns = ["cl_active_cancel_req", "sv_active_cancel", "sv_being_canceled"];
    let mut counts = |expected: &str| {
        wait_until(PATIENCE, || {
            let pool = row(&mut console, "SHOW POOLS", &[("database", "postgres"), ("user", "postgres")]);
            columns.iter().all(|column| pool[*column] == expected)
        })
    };
    assert!(counts("1"));
    released.store(true, Ordering::Relaxed);
    assert!(client.until(b'Z').unwrap().iter().any(|it| it.kind == b'E' && it.field(b'C') == "57014"));
    assert!(counts("0"));
}

#[test]
fn what_is_done_is_counted() {
    let house = House::open("{ size = 5 }");
    let mut client = house.client();
    let mut console = house.console();
    let stats = |console: &mut Conversation| -> BTreeMap<String, u64> {
        let row = row(console, "SHOW STATS_TOTALS", &[("database", "postgres")]);
        row.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect()
    };
    let before = stats(&mut console);
    for _ in 0..10 {
        client.query("select 1");
    }
    client.query("begin");
    client.query("select pg_sleep(0.3)");
    client.query("commit");
    let named = [
        frontend::parse("s", "select 2", &[]),
        frontend::bind("", "s", &[], 0),
        frontend::execute("", 0),
        frontend::sync(),
    ];
    client.send(&named.concat()).unwrap();
    client.until(b'Z').unwrap();
    // The last answer is counted when it has gone out.
    let counts = ["query_count", "xact_count", "server_assignment_count"];
    assert!(wait_until(PATIENCE, || {
        let now = stats(&mut console);
        counts.map(|name| now[name] - before[name]) == [14, 12, 12]
    }));
    let after = stats(&mut console);
    let more = |name: &str| after[name] - before[name];
    assert_eq!((more("query_count"), more("xact_count")), (14, 12));
    assert_eq!((more("client_parse_count"), more("server_parse_count"), more("bind_count")), (1, 1, 1));
    assert_eq!((more("server_assignment_count"), after["client_login_count"]), (12, 1));
    assert!(more("query_time") > 250_000 && more("xact_time") > 250_000, "{after:?}");
    assert!(more("bytes_received") > 200 && more("bytes_sent") > 500, "{after:?}");
    let total = row(&mut console, "SHOW TOTALS", &[("name", "total_xact_count")]);
    assert!(total["value"].parse::<u64>().unwrap() >= after["xact_count"]);
}

#[test]
fn the_extended_protocol_is_answered_too() {
    let house = House::open("{ size = 5 }");
    let mut console = house.console();
    let mut ask = |parts: &[Vec<u8>]| -> Vec<Message> {
        console.send(&parts.concat()).unwrap();
        console.until(b'Z').unwrap()
    };
    let kinds = |said: &[Message]| -> String { said.iter().map(|it| char::from(it.kind)).collect() };
    let said = ask(&[
        frontend::parse("lists", "SHOW LISTS", &[]),
        frontend::describe(b'S', "lists"),
        frontend::bind("", "lists", &[], 1),
        frontend::describe(b'P', ""),
        frontend::execute("", 2),
        frontend::execute("", 0),
        frontend::sync(),
    ]);
    let (begun, ended) = ("1tT2TDDs", "CZ");
    assert!(kinds(&said).starts_with(begun) && kinds(&said).ends_with(ended), "{said:?}");
    // In binary, as was asked: a text and four bytes.
    let row = said.iter().find(|message| message.kind == b'D').unwrap();
    assert!(row.body.starts_with(b"\0\x02\0\0\0\x09databases\0\0\0\x04\0\0\0"), "{row:?}");
    let stats = ask(&[
        frontend::parse("", "SHOW STATS", &[]),
        frontend::bind("", "", &[], 1),
        frontend::execute("", 0),
        frontend::sync(),
    ]);
    assert!(kinds(&stats).starts_with("12D") && kinds(&stats).ends_with("CZ"), "{stats:?}");
    // Behind an error everything is void up to the Sync.
    let failed = ask(&[
        frontend::parse("", "SHOW WHAT", &[]),
        frontend::bind("", "", &[], 0),
        frontend::execute("", 0),
        frontend::sync(),
    ]);
    assert_eq!(kinds(&failed), "EZ");
    let order = ask(&[
        frontend::parse("", "RECONNECT", &[]),
        frontend::bind("", "", &[], 0),
        frontend::describe(b'P', ""),
        frontend::execute("", 0),
        frontend::sync(),
    ]);
    assert_eq!(kinds(&order), "12nCZ");
    assert_eq!(kinds(&ask(&[frontend::query(" ; "), frontend::sync()])), "IZ");
}

#[test]
fn who_is_not_named_is_kept_out_and_who_may_look_gives_no_orders() {
    let house = House::open("{ size = 5 }");
    let mut stranger = Conversation::connect(house.address);
    let startup = [("user", "postgres"), ("database", "pgbouncer")];
    stranger.send(&frontend::startup(196_608, &startup)).unwrap();
    let said = stranger.until(b'E').unwrap();
    assert_eq!(said.last().unwrap().field(b'C'), "3D000", "{said:?}");
    let mut reader = Conversation::log_in(house.address, "stats", "tieline");
    assert!(!rows(&mut reader, "SHOW POOLS").is_empty());
    for order in [
        "PAUSE",
        "RESUME",
        "KILL",
        "KILL_CLIENT 1",
        "RECONNECT",
        "DISABLE a",
        "ENABLE a",
        "RELOAD",
        "WAIT_CLOSE",
    ] {
        assert_eq!(refused(&mut reader, order), ("42501".into(), "admin access needed".into()), "{order}");
    }
    // Who is taken out of the config may nothing from then on.
    let mut admin = house.console();
    house.tieline.reload(&config(&house.postgres, "{ size = 5 }", "{ stats = \"stats\" }"));
    let said = admin.query("RECONNECT");
    assert_eq!(said[0].field(b'S'), "FATAL", "{said:?}");
    assert!(!rows(&mut reader, "SHOW POOLS").is_empty());
}

#[test]
fn a_pause_waits_for_transactions_and_holds_others_until_they_may_go_on() {
    let house = House::open("{ size = 5 }");
    let (mut busy, mut idle) = (house.client(), house.client());
    busy.query("begin");
    idle.query("select 1");
    let mut console = house.console();
    let mut pausing = house.console();
    pausing.send(&frontend::query("PAUSE postgres")).unwrap();
    assert!(wait_until(PATIENCE, || row(&mut console, "SHOW DATABASES", &[("name", "postgres")])["paused"]
        == "1"));
    // Another one of it waits, and another database does not.
    idle.send(&frontend::query("select 'late'")).unwrap();
    let waiting = [("database", "postgres"), ("cl_waiting", "1")];
    assert!(wait_until(PATIENCE, || !rows(&mut console, "SHOW POOLS")
        .iter()
        .all(|row| row["cl_waiting"] == "0")));
    row(&mut console, "SHOW POOLS", &waiting);
    let mut other = Conversation::log_in(house.address, "postgres", "template1");
    assert_eq!(other.value("select 7"), "7");
    // The transaction goes on to its end, and then the pause has come.
    assert!(pausing.is_silent_for(Duration::from_millis(100)));
    assert_eq!(busy.value("select 8"), "8");
    busy.query("commit");
    assert!(pausing.until(b'Z').unwrap().iter().any(|message| message.kind == b'C'));
    let postgres = rows(&mut console, "SHOW SERVERS");
    assert!(postgres.iter().all(|row| row["database"] != "postgres"), "{postgres:?}");
    assert!(idle.is_silent_for(Duration::from_millis(100)));
    done(&mut console, "RESUME postgres");
    assert_eq!(
        idle.until(b'Z').unwrap().iter().find(|it| it.kind == b'D').unwrap().columns()[0].as_deref(),
        Some("late")
    );
}

#[test]
fn a_pause_that_nobody_waits_for_is_none() {
    let house = House::open("{ size = 5 }");
    let mut busy = house.client();
    busy.query("begin");
    let mut console = house.console();
    let mut pausing = house.console();
    pausing.send(&frontend::query("PAUSE")).unwrap();
    let paused =
        |console: &mut Conversation| row(console, "SHOW STATE", &[("key", "paused")])["value"].clone();
    assert!(wait_until(PATIENCE, || paused(&mut console) == "yes"));
    pausing.reset();
    assert!(wait_until(PATIENCE, || paused(&mut console) == "no"));
    assert_eq!(house.client().value("select 1"), "1");
}

#[test]
fn servers_are_made_anew_when_they_come_back() {
    let house = House::open("{ size = 5 }");
    let (mut busy, mut idle) = (house.client(), house.client());
    busy.query("begin");
    let old = [busy.value("select pg_backend_pid()"), idle.value("select pg_backend_pid()")];
    let mut console = house.console();
    done(&mut console, "RECONNECT postgres");
    // The one at rest is gone at once, the other when its transaction is over.
    assert!(wait_until(PATIENCE, || house.backends() == "1"));
    assert_eq!(busy.value("select pg_backend_pid()"), old[0]);
    assert_eq!(row(&mut console, "SHOW SERVERS", &[("remote_pid", &old[0])])["close_needed"], "1");
    let waiting = thread::spawn({
        let mut console = house.console();
        move || done(&mut console, "WAIT_CLOSE postgres")
    });
    busy.query("commit");
    waiting.join().unwrap();
    assert!(!old.contains(&busy.value("select pg_backend_pid()")));
    assert!(!old.contains(&idle.value("select pg_backend_pid()")));
}

#[test]
fn a_database_that_is_killed_is_silent_until_it_is_resumed() {
    let house = House::open("{ size = 5 }");
    let (mut client, mut other) =
        (house.client(), Conversation::log_in(house.address, "postgres", "template1"));
    client.query("begin");
    assert_eq!(other.value("select 1"), "1");
    let mut console = house.console();
    done(&mut console, "KILL postgres");
    assert_eq!(client.until(b'Z').unwrap(), []);
    let is_gone = |row: &BTreeMap<String, String>| row["database"] != "postgres";
    assert!(wait_until(PATIENCE, || rows(&mut console, "SHOW SERVERS").iter().all(is_gone)));
    assert_eq!(other.value("select 2"), "2");
    let mut late = Conversation::connect(house.address);
    let startup = frontend::startup(196_608, &[("user", "postgres"), ("database", "postgres")]);
    late.send(&startup).unwrap();
    late.until(b'R').unwrap();
    assert!(late.is_silent_for(Duration::from_millis(200)));
    done(&mut console, "RESUME postgres");
    assert!(late.until(b'Z').unwrap().iter().any(|message| message.kind == b'K'));
    assert_eq!(late.value("select 3"), "3");
}

#[test]
fn one_client_is_ended_by_its_number() {
    let house = House::open("{ size = 5 }");
    let (mut one, mut other) = (house.client(), house.client());
    let mut console = house.console();
    let port = one.stream().local_addr().unwrap().port().to_string();
    let id = row(&mut console, "SHOW CLIENTS", &[("port", &port)])["id"].clone();
    done(&mut console, &format!("KILL_CLIENT {id}"));
    let last = one.until(b'Z').unwrap();
    assert!(last.iter().all(|message| message.field(b'C') == "57P01"), "{last:?}");
    assert_eq!(other.value("select 1"), "1");
    assert_eq!(refused(&mut console, "KILL_CLIENT 999999").0, "08P01");
    let log = house.tieline.cli(["ls", "--json"]).expect("ls");
    assert!(!log.contains("999999"));
}

#[test]
fn a_database_that_is_disabled_takes_no_more_clients() {
    let house = House::open("{ size = 5 }");
    let (mut client, mut console) = (house.client(), house.console());
    done(&mut console, "DISABLE postgres");
    assert_eq!(row(&mut console, "SHOW DATABASES", &[("name", "postgres")])["disabled"], "1");
    let mut late = Conversation::connect(house.address);
    late.send(&frontend::startup(196_608, &[("user", "postgres"), ("database", "postgres")])).unwrap();
    assert_eq!(late.until(b'E').unwrap().last().unwrap().field(b'C'), "57P03");
    assert_eq!(client.value("select 1"), "1");
    done(&mut console, "ENABLE postgres");
    assert_eq!(house.client().value("select 2"), "2");
}

#[test]
fn a_reload_is_done_whole_or_not_at_all() {
    let house = House::open("{ size = 5 }");
    let mut console = house.console();
    house.tieline.write_config("[listener");
    let (code, message) = refused(&mut console, "RELOAD");
    assert!(code == "F0000" && message.contains("tieline.toml:1:"), "{code} {message}");
    assert_eq!(row(&mut console, "SHOW DATABASES", &[("name", "postgres")])["pool_size"], "5");
    house.tieline.write_config(&config(&house.postgres, "{ size = 9 }", "{ admin = \"admin\" }"));
    done(&mut console, "RELOAD");
    assert_eq!(row(&mut console, "SHOW DATABASES", &[("name", "postgres")])["pool_size"], "9");
    assert_eq!(row(&mut console, "SHOW CONFIG", &[("key", "admin_users")])["value"], "admin");
}
