//! Every setting that PgBouncer's documentation knows, from 1.18 to 1.25: each is carried over, or told.

use super::ini::{self, Userlist};
use super::notes::Notes;
use super::secrets::Secrets;
use super::{pgbouncer, write};

/// What becomes of `[pgbouncer]` with a line more, a database with a pair more, and a user.
fn import(global: &str, pair: &str, user: &str) -> (String, Vec<String>) {
    let text = format!(
        "[databases]\na = host=10.0.0.1 {pair}\n[users]\n{user}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         unix_socket_dir = /run/x\nauth_type = md5\n{global}\n"
    );
    let read = ini::parse("x.ini", &text, &mut |_| Err("there is none".into()));
    let mut notes = Notes::of(read.lines);
    let mut secrets = Secrets::of(Userlist::default(), None, &mut notes);
    let config = pgbouncer::import(&read.settings, &mut secrets, &mut notes);
    (write::toml(&config, "x.ini"), notes.lines())
}

/// That what `line` says shows: in the config, or in a note that names it and says more than that it is
/// unknown.
fn shows(key: &str, with: (String, Vec<String>), without: &(String, Vec<String>)) {
    let (config, notes) = with;
    let told = notes.iter().find(|note| note.contains(key) && !without.1.contains(note));
    assert!(config != without.0 || told.is_some(), "{key} is dropped without a word:\n{config}\n{notes:#?}");
    assert!(told.is_none_or(|note| !note.contains("is not known")), "{told:?}");
}

const GLOBALS: &str = "
    admin_users=ana application_name_add_host=1 auth_dbname=a auth_file=x auth_hba_file=hba
    auth_ident_file=ident auth_ldap_options=ldapurl auth_query=SELECT_$1 auth_type=scram-sha-256 auth_user=ana
    autodb_idle_timeout=1 cancel_wait_timeout=1 client_idle_timeout=9 client_login_timeout=9
    client_tls13_ciphers=x client_tls_ca_file=ca client_tls_cert_file=crt client_tls_ciphers=x
    client_tls_dheparams=x client_tls_ecdhcurve=x client_tls_key_file=key client_tls_protocols=all
    client_tls_sslmode=require conffile=x default_pool_size=7 disable_pqexec=1 dns_max_ttl=1
    dns_nxdomain_ttl=1 dns_zone_check_period=1 idle_transaction_timeout=3 ignore_startup_parameters=options
    job_name=x listen_addr=127.0.0.2 listen_backlog=9 listen_port=6000 log_connections=0
    log_disconnections=0 log_pooler_errors=0 log_stats=0 logfile=x max_client_conn=9
    max_db_client_connections=9 max_db_connections=9 max_packet_size=9 max_prepared_statements=9
    max_user_client_connections=9 max_user_connections=9 min_pool_size=9 peer_id=1 pidfile=x pkt_buf=1
    pool_mode=transaction query_timeout=9 query_wait_notify=9 query_wait_timeout=9 reserve_pool_size=9
    reserve_pool_timeout=9 resolv_conf=x sbuf_loopcnt=9 scram_iterations=9 server_check_delay=9
    server_check_query=x server_connect_timeout=9 server_fast_close=1 server_idle_timeout=9 server_lifetime=9
    server_login_retry=9 server_reset_query=x server_reset_query_always=1 server_round_robin=1
    server_tls13_ciphers=x server_tls_ca_file=ca server_tls_cert_file=crt server_tls_ciphers=x
    server_tls_key_file=key server_tls_protocols=all server_tls_sslmode=verify-full service_name=x
    so_reuseport=1 stats_period=9 stats_users=bob suspend_timeout=9 syslog=1 syslog_facility=x
    syslog_ident=x tcp_defer_accept=1 tcp_keepalive=0 tcp_keepcnt=9 tcp_keepidle=9 tcp_keepintvl=9
    tcp_socket_buffer=9 tcp_user_timeout=9 track_extra_parameters=x transaction_timeout=9
    unix_socket_dir=/run/y unix_socket_group=x unix_socket_mode=0700 user=x verbose=1
";

const OF_DATABASES: &str = "
    application_name=x auth_dbname=b auth_query=SELECT_$1 auth_user=ana client_encoding=x connect_query=x
    datestyle=x dbname=b host=10.0.0.2 load_balance_hosts=disable max_db_client_connections=9
    max_db_connections=9 min_pool_size=9 password=x pool_mode=statement pool_size=9 port=9 reserve_pool=9
    reserve_pool_size=9 server_lifetime=9 timezone=x user=ana
";

const OF_USERS: &str = "
    client_idle_timeout=9 idle_transaction_timeout=9 max_user_client_connections=9 max_user_connections=9
    pool_mode=session pool_size=9 query_timeout=9 reserve_pool_size=9 transaction_timeout=9
";

#[test]
fn no_setting_is_dropped_without_a_word() {
    let without = import("", "", "");
    for line in GLOBALS.split_whitespace() {
        let (key, _) = line.split_once('=').unwrap();
        // The file of the users is read before.
        if key != "auth_file" {
            shows(key, import(line, "", ""), &without);
        }
    }
    for pair in OF_DATABASES.split_whitespace() {
        let (key, _) = pair.split_once('=').unwrap();
        // A password is of use to a user alone.
        let pair = if key == "password" { format!("user=ana {pair}") } else { pair.to_owned() };
        shows(key, import("", &pair, ""), &without);
    }
    for pair in OF_USERS.split_whitespace() {
        let (key, _) = pair.split_once('=').unwrap();
        shows(key, import("", "", &format!("ana = {pair}")), &without);
    }
    let (_, notes) = import("\n[peers]\n1 = host=/tmp/one\n[later]\nx = 1", "", "");
    for what in ["peers", "[later]"] {
        assert!(notes.iter().any(|note| note.contains(what)), "{what}: {notes:#?}");
    }
}

#[test]
fn a_value_that_is_none_is_told_wherever_it_stands() {
    let without = import("", "", "");
    for line in GLOBALS.split_whitespace() {
        let (key, value) = line.split_once('=').unwrap();
        let is_number = value.parse::<u32>().is_ok();
        if is_number {
            shows(key, import(&format!("{key} = 5 minutes"), "", ""), &without);
        }
    }
    for pair in ["pool_size=many", "max_db_connections=x", "server_lifetime=1h", "port=x", "pool_mode=fast"] {
        let (key, _) = pair.split_once('=').unwrap();
        let (_, notes) = import("", pair, "");
        assert!(notes.iter().any(|note| note.contains(key)), "{pair}: {notes:#?}");
    }
    let (config, notes) = import("pool_mode = fast", "", "");
    assert!(config.contains("mode = \"session\""), "{config}");
    assert!(notes.iter().any(|note| note.contains("pool_mode = fast")), "{notes:#?}");
}

#[test]
fn a_connection_that_is_used_once_there_is_used_once_here() {
    let (config, _) = import("server_lifetime = 0", "", "");
    assert!(config.contains("max_age = \"1ms\""), "{config}");
    let (config, _) = import("", "server_lifetime=0", "");
    assert!(config.contains("max_age = \"1ms\""), "{config}");
}
