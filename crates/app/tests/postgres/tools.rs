//! Verbs that make a config: of a password, and of what PgBouncer is told.

use std::path::Path;
use std::process::Command;

use tieline_testkit::{Finished, PgBouncer, Postgres, Tieline, finish};

fn tieline(folder: &Path, arguments: &[&str]) -> Finished {
    finish(Command::new(Tieline::binary()).args(arguments).current_dir(folder).env("NO_COLOR", "1"))
}

fn with_input(folder: &Path, input: &str, arguments: &str) -> Finished {
    let script = format!("printf '{input}' | '{}' {arguments}", Tieline::binary().display());
    finish(Command::new("sh").args(["-c", &script]).current_dir(folder))
}

/// Imports `ini` with `files` beside it: the config, which passes `check`, and what was told.
fn import(ini: &str, files: &[(&str, &str)], arguments: &[&str]) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("pgbouncer.ini", ini)].iter().chain(files) {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let all = [&["import", "pgbouncer", "pgbouncer.ini"], arguments].concat();
    let imported = tieline(folder.path(), &all);
    assert!(imported.success(), "{imported:?}");
    std::fs::write(folder.path().join("tieline.toml"), &imported.stdout).unwrap();
    let checked = tieline(folder.path(), &["check"]);
    assert!(checked.success(), "{checked:?}\n{}", imported.stdout);
    (imported.stdout, imported.stderr)
}

#[track_caller]
fn assert_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

const USERLIST: &str = "\"ana\" \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\"\n\
    \"bob\" \"md50123456789abcdef0123456789abcdef\"\n\"carl\" \"hunter2\"\n\"d d\" \"x\"\n\"eve\" \"\"\n";

#[test]
fn a_verifier_is_made_of_what_comes_by_the_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let made = with_input(folder.path(), "pencil\\n", "user password ana --iterations 5000").expect("user");
    assert!(made.starts_with("[user.ana]\nverifier = \"SCRAM-SHA-256$5000:"), "{made}");
    for (input, arguments) in [("", "user password ana"), ("x\\n", "user password 'a b'")] {
        let refused = with_input(folder.path(), input, arguments);
        assert!(!refused.success() && refused.stdout.is_empty(), "{refused:?}");
    }
    let told = with_input(folder.path(), "x\\n", "user password ana hunter2");
    assert_eq!(told.code, Some(2), "a password is no argument: {told:?}");
}

#[test]
fn a_verifier_is_written_into_the_config_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tieline.toml");
    std::fs::write(&file, "[server]\nworkers = 1").unwrap();
    with_input(folder.path(), "pencil\\n", "user password ana --write").expect("user");
    let written = std::fs::read_to_string(&file).unwrap();
    assert_all(&written, &["[server]\nworkers = 1\n[user.ana]\nverifier = \"SCRAM-SHA-256$4096:"]);
    assert!(tieline(folder.path(), &["check"]).success());
    let again = with_input(folder.path(), "pencil\\n", "user password ana --write");
    assert!(
        !again.success() && again.stderr.contains("tieline.toml:3: user \"ana\" is there already"),
        "{again:?}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
}

#[test]
fn the_file_that_debian_ships_becomes_a_config() {
    let ini = "[databases]\n\n[users]\n\n[pgbouncer]\nlogfile = /var/log/postgresql/pgbouncer.log\n\
               pidfile = /var/run/postgresql/pgbouncer.pid\nlisten_addr = localhost\nlisten_port = 6432\n\
               unix_socket_dir = /var/run/postgresql\nauth_type = md5\n\
               auth_file = /nonexistent/userlist.txt\n";
    let (config, told) = import(&ini.replace("[databases]\n", "[databases]\nfoodb =\n"), &[], &[]);
    assert_all(
        &config,
        &[
            "bind = [\"127.0.0.1:6432\", \"unix:/var/run/postgresql/.s.PGSQL.6432\"]",
            "database = \"foodb\"\nupstream = \"foodb\"",
            "endpoints = [\"unix:/var/run/postgresql/.s.PGSQL.5432\"]",
            "mode = \"session\", size = 20, idle = \"10m\", max_age = \"1h\"",
        ],
    );
    assert_all(&told, &["pgbouncer.ini:7: logfile", "pgbouncer.ini:8: pidfile", "auth_file cannot be read"]);
}

#[test]
fn databases_users_and_limits_are_carried_over() {
    let ini = "[databases]\n\
        orders = host=10.1.2.3 dbname=orders_v2 user=app password='s''ecret' pool_size=30 \
        connect_query='SELECT 1'\n\
        \"Stock DB\" = host=127.0.0.1,localhost port=5433,5434 pool_mode=session\n\
        * = host=/run/postgresql\n\
        [pgbouncer]\nlisten_addr = *\nunix_socket_dir = /run/pg\nunix_socket_mode = 0777\nauth_type = md5\n\
        auth_file = userlist.txt\npool_mode = transaction\nmax_client_conn = 500\ndefault_pool_size = 25\n\
        server_idle_timeout = 0\nquery_wait_timeout = 30.5\nquery_wait_notify = 0\n\
        server_tls_sslmode = prefer\n\
        server_reset_query_always = 1\n\
        frobnicate = 1\nnonsense\n";
    let files = [("userlist.txt", USERLIST)];
    let (config, told) = import(ini, &files, &["--passwords", "pw"]);
    assert_all(
        &config,
        &[
            "bind = [\"0.0.0.0:6432\", \"[::]:6432\", \"unix:/run/pg/.s.PGSQL.6432\"]",
            "auth = \"md5\"\nunix_mode = \"0777\"",
            "limits = { connections = 500 }",
            "[upstream.orders]\nprotocol = \"postgres\"\nendpoints = [\"10.1.2.3:5432\"]\n\
             database = \"orders_v2\"\n\
             user = \"app\"\npassword_file = \"pw/app.pw\"\ntls = \"require\"\n\
             pool = { mode = \"transaction\", size = 30, idle = \"365d\", max_age = \"1h\", \
             reset = \"always\", notice = \"off\" }\n\
             timeouts = { connect = \"15s\", acquire = \"30s500ms\" }",
            "database = \"Stock DB\"\nupstream = \"Stock-DB\"",
            "endpoints = [\"127.0.0.1:5433\", \"localhost:5434\"]\npool = { mode = \"session\", size = 25",
            "[[listener.postgres.route]]\nupstream = \"any\"",
            "[user.ana]\nverifier = \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$",
            "[user.bob]\nverifier = \"md50123456789abcdef0123456789abcdef\"",
            "[user.carl]\npassword_file = \"pw/carl.pw\"",
        ],
    );
    assert!(!config.contains("hunter2") && !config.contains("ecret"), "{config}");
    assert_all(
        &told,
        &[
            "pgbouncer.ini:2: connect_query=SELECT 1 of database \"orders\"",
            "server_tls_sslmode = prefer",
            "frobnicate = 1: is not known",
            "\"nonsense\" is no setting",
            "userlist.txt:4: user \"d d\"",
            "userlist.txt:5: user \"eve\" has no password",
        ],
    );
}

#[test]
fn what_users_may_have_is_carried_over() {
    let ini = "[databases]\na = host=127.0.0.1\nb = host=127.0.0.1 port=5433\n\
        [users]\nana = max_user_connections=5 pool_mode=session\nbob = max_user_connections=0\n\
        [pgbouncer]\nmax_user_connections = 8\nauth_type = trust\nlisten_addr = 127.0.0.1\n";
    let (config, told) = import(ini, &[], &[]);
    for upstream in ["a", "b"] {
        let share = |lines: &str| format!("[[upstream.{upstream}.share]]\n{lines}\n");
        let shares = [share("cap = 8"), share("user = \"ana\"\ncap = 5"), share("user = \"bob\"")];
        assert_all(&config, &shares.each_ref().map(|share| share.as_str()));
    }
    assert_all(
        &told,
        &[
            "pool_mode=session of user \"ana\": write a route with user = \"ana\"",
            "max_user_connections counts at all databases together there, at each upstream here",
        ],
    );
}

#[test]
fn how_many_clients_there_may_be_is_carried_over() {
    let ini = "[databases]\na = host=127.0.0.1 max_db_client_connections=7\n\
        * = host=127.0.0.1 max_db_client_connections=0\n\
        [users]\nana = max_user_client_connections=5\nbob = max_user_client_connections=many\n\
        carl = max_user_client_connections=0 max_user_connections=3\n\
        [pgbouncer]\nmax_client_conn = 200\nmax_user_client_connections = 20\n\
        max_db_client_connections = 300\nauth_type = md5\nauth_file = userlist.txt\n\
        listen_addr = 127.0.0.1\n";
    let (config, told) = import(ini, &[("userlist.txt", "\"carl\" \"hunter2\"\n")], &["--passwords", "pw"]);
    assert_all(
        &config,
        &[
            "limits = { connections = 200, per_user = 20, per_database = 200 }",
            "database = \"a\"\nupstream = \"a\"\naccess = \"public\"\nconnections = 7\n",
            "upstream = \"any\"\naccess = \"public\"\nconnections = \"off\"\n",
            "[user.carl]\npassword_file = \"pw/carl.pw\"\nconnections = \"off\"\n",
            "[user.ana]\nconnections = 5\n",
        ],
    );
    assert_all(&told, &["pgbouncer.ini:6: max_user_client_connections=many of \"bob\" is no number"]);
    assert!(!told.contains("has no equivalent"), "{told}");
}

#[test]
fn files_that_are_included_are_read_and_their_lines_are_told_by_their_places() {
    let ini = "[pgbouncer]\nlisten_addr = 127.0.0.1\n%include databases.ini\n[users]\n%include gone.ini\n";
    let databases = "frobnicate = 1\n[databases]\n; one\norders = host=127.0.0.1 connect_query='SELECT 1'\n";
    let (config, told) = import(ini, &[("databases.ini", databases)], &[]);
    assert_all(&config, &["database = \"orders\"\nupstream = \"orders\""]);
    assert_all(
        &told,
        &[
            "databases.ini:1: frobnicate = 1: is not known",
            "databases.ini:4: connect_query=SELECT 1 of database \"orders\"",
            "pgbouncer.ini:5: %include gone.ini: ",
        ],
    );
}

#[test]
fn what_is_imported_serves_psql_as_pgbouncer_does() {
    let postgres = Postgres::start();
    let port = postgres.address().port();
    let database = format!("orders = host=127.0.0.1 port={port} dbname=postgres user=postgres");
    let settings = [
        ("auth_type", "scram-sha-256"),
        ("pool_mode", "transaction"),
        ("max_user_client_connections", "9"),
        ("query_wait_notify", "2"),
        ("server_tls_sslmode", "disable"),
    ];
    let user = "\"carl\" \"hunter2\"";
    let lines: String = settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let ini = format!(
        "[databases]\n{database}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = 0\n\
         auth_file = userlist.txt\n{lines}"
    );
    let (config, _) = import(&ini, &[("userlist.txt", user)], &["--passwords", "pw"]);
    // 1.18 has neither of these yet.
    let since = ["max_user_client_connections", "query_wait_notify"];
    let settings: Vec<_> = settings.into_iter().filter(|(key, _)| !since.contains(key)).collect();
    let bouncer = PgBouncer::start(&[&database], &settings, &[user]);
    let tieline = Tieline::start(&config);
    let answers = [tieline.listener_address("postgres"), bouncer.address()].map(|at| {
        let sql = "select current_database(), current_user, 'it''s'";
        let url = format!("postgresql://carl:hunter2@{at}/orders");
        let asked = finish(Command::new("psql").args([&url, "-XAtc", sql]));
        let wrong = finish(Command::new("psql").args([&url.replace("hunter2", "x"), "-XAtc", sql]));
        assert!(!wrong.success(), "{wrong:?}");
        asked.expect("psql")
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].trim(), "postgres|postgres|it's");
}

#[test]
fn passwords_are_left_out_where_nobody_says_where_they_go() {
    let ini = "[databases]\na = host=10.0.0.1 user=app password=secret1\nb = host=10.0.0.2\n\
               [pgbouncer]\nlisten_addr = 127.0.0.1\nauth_type = scram-sha-256\nauth_file = nowhere.txt\n\
               server_tls_sslmode = verify-full\n";
    let files = [("users.txt", USERLIST)];
    let (config, told) = import(ini, &files, &["--userlist", "users.txt"]);
    assert!(!config.contains("secret1") && !config.contains("hunter2"), "{config}");
    assert_all(&config, &["[user.carl]\nverifier = \"SCRAM-SHA-256$4096:", "tls = \"verify-full\""]);
    assert!(!config.contains("[user.bob]"), "MD5 is of no use to SCRAM:\n{config}");
    assert_all(
        &told,
        &[
            "pgbouncer.ini:2: the password of \"app\" is left out",
            "users.txt:2: user \"bob\" has an MD5 hash",
        ],
    );
}

#[test]
fn where_users_are_looked_up_is_carried_over() {
    let ini = "[databases]\norders = host=10.1.2.3 dbname=orders_v2\n* = host=10.1.2.3\n\
        [pgbouncer]\nlisten_addr = 127.0.0.1\nauth_type = scram-sha-256\nauth_file = userlist.txt\n\
        auth_user = carl\nauth_query = SELECT * FROM pooler.find($1)\nquery_timeout = 30\n\
        idle_transaction_timeout = 0\nmax_db_connections = 12\n";
    let files = [("userlist.txt", USERLIST)];
    let (config, told) = import(ini, &files, &["--passwords", "pw"]);
    assert_all(
        &config,
        &[
            "auth_query = { upstream = \"lookup\", query = \"SELECT * FROM pooler.find($1)\" }",
            "[upstream.lookup]\nprotocol = \"postgres\"\nendpoints = [\"10.1.2.3:5432\"]\n\
             database = \"orders_v2\"\nuser = \"carl\"\npassword_file = \"pw/carl.pw\"",
            "size = 12",
            "acquire = \"2m\", query = \"30s\" }",
        ],
    );
    assert_all(&told, &["pgbouncer.ini:9: auth_query: it runs with search_path = pg_catalog"]);
    // For one database alone, which is not where it is asked; and the query that both have without a word.
    let own = "[databases]\na = host=127.0.0.1\nb = host=127.0.0.2 auth_user=carl auth_dbname=a\n\
        [pgbouncer]\nlisten_addr = 127.0.0.1\nauth_file = userlist.txt\n\
        auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename=$1\n";
    let (config, told) = import(own, &files, &["--passwords", "pw"]);
    let lookup = "[upstream.lookup]\nprotocol = \"postgres\"\nendpoints = [\"127.0.0.1:5432\"]\n\
                  database = \"a\"\n";
    assert_all(&config, &["auth_query = { upstream = \"lookup\" }\n", lookup]);
    assert_all(&told, &["pgbouncer.ini:3: auth_user = carl: users of all databases are looked up in"]);
    assert!(!told.contains("not carried over"), "{told}");
    // Who asks nobody for a password looks up nobody.
    let (config, told) = import(&own.replace("auth_file", "auth_type = trust\nauth_file"), &files, &[]);
    assert!(!config.contains("auth_query"), "{config}");
    assert_all(
        &told,
        &["auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename=$1: not carried over"],
    );
}

#[test]
fn tls_of_clients_is_carried_over() {
    let ini = "[databases]\na = host=127.0.0.1\n[pgbouncer]\nlisten_addr = 10.0.0.9\nauth_type = cert\n\
               client_tls_sslmode = verify-full\nclient_tls_cert_file = db.crt\n\
               client_tls_key_file = db.key\n\
               client_tls_ca_file = ca.pem\nclient_tls_protocols = all\n";
    let files = [("db.crt", ""), ("db.key", ""), ("ca.pem", "")];
    let (config, told) = import(ini, &files, &[]);
    assert_all(
        &config,
        &[
            "auth = \"certificate\"",
            "tls = { certificate = \"db.crt\", key = \"db.key\", client_ca = \"ca.pem\" }",
        ],
    );
    assert_all(&told, &["client_tls_protocols = all"]);
    let (config, told) =
        import(&ini.replace("verify-full", "prefer").replace("= cert", "= trust"), &files, &[]);
    assert_all(&config, &["auth = \"scram\"", "tls_required = false"]);
    assert!(!config.contains("client_ca"), "{config}");
    assert_all(&told, &["auth_type = trust is for clients of this machine alone"]);
}
