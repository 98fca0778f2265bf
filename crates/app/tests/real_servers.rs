//! Programs that people use every day, through Tieline to the servers they are made for.
#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test may")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tieline_testkit::{
    Finished, Haproxy, HttpServer, Nginx, PATIENCE, Postgres, Redis, Sshd, TcpServer, Tieline, UnixEcho,
    finish, free_port, http_over_tcp, loopback, program, wait_until,
};

use support::{
    OneRoute, assert_closed, assert_echoes, assert_unix_echoes, await_finished, connect, finished, live,
    reason_of, refusal, start, story,
};

#[test]
fn psql_and_pgbench_work_as_without_tieline() {
    let postgres = Postgres::start();
    let config =
        OneRoute { upstream: "health = { postgres = true, every = \"200ms\" }", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[postgres.address()]));
    let sum = postgres.psql(address, "postgres", &["-c", "select sum(n) from generate_series(1, 100000) n"]);
    assert_eq!(sum.expect("psql"), "5000050000");
    postgres.pgbench(address, &["-i", "-q", "-s", "1"]).expect("pgbench -i");
    let run = postgres.pgbench(address, &["-c", "4", "-j", "2", "-t", "100"]).expect("pgbench");
    assert!(run.contains("number of transactions actually processed: 400/400"), "{run}");
    assert_eq!(postgres.query("select count(*) from pgbench_history"), "400");
    assert!(wait_until(PATIENCE, || live(&tieline, "").is_empty()));
    let rows = finished(&tieline, "");
    // A client's Terminate makes both sides close at once: whichever is first, it is an orderly end.
    let orderly = |row: &Value| row["reason"] == "client-closed" || row["reason"] == "upstream-closed";
    assert!(rows.len() >= 6 && rows.iter().all(orderly), "{rows:#?}");
}

#[test]
fn ssh_runs_commands_and_scp_copies_files_byte_by_byte() {
    let sshd = Sshd::start();
    let (tieline, address) = start(&OneRoute::default().to(&[sshd.address()]));
    assert_eq!(finish(sshd.ssh(address).arg("echo far side")).expect("ssh"), "far side");

    let directory = tempfile::tempdir().unwrap();
    let [from, to, back] = ["from", "to", "back"].map(|name| directory.path().join(name));
    let bytes: Vec<u8> = (0..8u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(&from, &bytes).unwrap();
    let far = format!("server:{}", to.display());
    finish(sshd.scp(address).arg(&from).arg(&far)).expect("scp there");
    finish(sshd.scp(address).arg(&far).arg(&back)).expect("scp back");
    assert!(fs::read(&to).unwrap() == bytes && fs::read(&back).unwrap() == bytes);
    let rows = await_finished(&tieline, "bytes>8MiB", 2);
    assert_eq!(rows.len(), 2, "one row for each copy: {rows:#?}");
}

#[test]
fn redis_cli_keeps_values_over_pipelines_and_large_answers() {
    let redis = Redis::start();
    let (tieline, address) = start(&OneRoute::default().to(&[redis.address()]));
    assert_eq!(redis.cli(address, &["set", "k", "v"]).expect("set"), "OK");
    assert_eq!(redis.cli(redis.address(), &["get", "k"]).expect("get"), "v");
    redis.cli(address, &["setrange", "large", "4194303", "x"]).expect("setrange");
    let large = redis.cli(address, &["get", "large"]).expect("get");
    assert_eq!(large.len(), 4 << 20);
    let rows = await_finished(&tieline, "bytes>4MiB", 1);
    assert_eq!(rows[0]["reason"], "client-closed");
}

#[test]
fn curl_fetches_and_keeps_its_connection() {
    let http = HttpServer::start();
    http.write("large.bin", &vec![7; 16 << 20]);
    http.write("small.txt", b"small");
    let (tieline, address) = start(&OneRoute::default().to(&[http.address()]));
    let target = |name: &str| format!("http://{address}/{name}");
    let mut curl = Command::new(program("curl"));
    curl.args(["-sS", "-o", "/dev/null", "-w", "%{size_download} ", &target("large.bin")]);
    curl.args(["-o", "/dev/null", &target("small.txt"), "-o", "/dev/null", &target("small.txt")]);
    assert_eq!(finish(&mut curl).expect("curl"), format!("{} 5 5", 16 << 20));
    let rows = await_finished(&tieline, "", 1);
    assert_eq!(rows.len(), 1, "three requests travel on one connection: {rows:#?}");
    assert!(rows[0]["bytes_down"].as_u64().unwrap() > 16 << 20);
}

#[test]
fn a_unix_listener_leads_to_tcp_and_a_tcp_listener_to_a_unix_endpoint() {
    let (tcp, unix) = (TcpServer::echo(), UnixEcho::start());
    let config = format!(
        r#"
        [listener.web]
        bind = ["127.0.0.1:0", "[::1]:0"]
        protocol = "tcp"
        route = [{{ upstream = "unix", access = "public" }}]
        [listener.local]
        bind = "unix:{{dir}}/local.sock"
        unix_mode = "0600"
        protocol = "tcp"
        route = [{{ upstream = "tcp", access = "public" }}]
        [upstream.unix]
        endpoints = ["unix:{}"]
        [upstream.tcp]
        endpoints = ["{}"]
        "#,
        unix.path().display(),
        tcp.address()
    );
    let tieline = Tieline::start(&config);
    let bound = tieline.bound_addresses("web");
    assert!(bound.iter().any(SocketAddr::is_ipv4) && bound.iter().any(SocketAddr::is_ipv6), "{bound:?}");
    for address in bound {
        let mut client = connect(address);
        assert_echoes(&mut client);
        // A half that is shut stays half a connection: the answer still comes.
        client.write_all(b"last words").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "last words");
    }
    let socket = tieline.directory().join("local.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_unix_echoes(&mut UnixStream::connect(&socket).unwrap());
    assert_eq!((unix.accepted(), tcp.accepted()), (2, 1));
}

/// An nginx that speaks TLS by a certificate of its own for `name`, and says `name`.
fn https(name: &str, directory: &Path) -> (Nginx, SocketAddr) {
    let [certificate, key] = ["crt", "key"].map(|kind| directory.join(format!("{name}.{kind}")));
    let mut openssl = Command::new(program("openssl"));
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-days", "2", "-subj", &format!("/CN={name}")]);
    openssl.args(["-addext", &format!("subjectAltName=DNS:{name}")]);
    finish(openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate)).expect("openssl");
    let address = loopback(free_port());
    let tls = format!("ssl_certificate {}; ssl_certificate_key {};", certificate.display(), key.display());
    let body = format!("server {{ listen {address} ssl; {tls} return 200 {name}; }}");
    (Nginx::http(&body, address), address)
}

/// Asks for `https://name/` at `address`; the certificate must be that of `trusted`.
fn curl_tls(name: &str, address: SocketAddr, trusted: &str, directory: &TempDir) -> Finished {
    let mut curl = Command::new(program("curl"));
    let resolved = format!("{name}:{}:{}", address.port(), address.ip());
    curl.args(["-sS", "--max-time", "20", "--resolve", &resolved]);
    curl.arg("--cacert").arg(directory.path().join(format!("{trusted}.crt")));
    finish(curl.arg(format!("https://{name}:{}/", address.port())))
}

#[test]
fn tls_is_passed_through_by_the_name_asked_for_and_strangers_names_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ((_one, one), (_two, two)) =
        (https("one.test", directory.path()), https("two.test", directory.path()));
    let (tieline, address) = start(&format!(
        r#"
        [listener.web]
        bind = "127.0.0.1:0"
        protocol = "tcp"
        route = [
            {{ sni = "one.test", upstream = "one", access = "public" }},
            {{ sni = "two.test", upstream = "two", access = "public" }},
        ]
        [upstream.one]
        endpoints = ["{one}"]
        [upstream.two]
        endpoints = ["{two}"]
        "#
    ));
    for name in ["one.test", "two.test"] {
        assert_eq!(curl_tls(name, address, name, &directory).expect("curl"), name);
    }
    let mistaken = curl_tls("one.test", address, "two.test", &directory);
    assert!(!mistaken.success(), "the certificate was not one's: {mistaken:?}");
    let stranger = curl_tls("three.test", address, "one.test", &directory);
    assert!(!stranger.success(), "{stranger:?}");
    let rows = await_finished(&tieline, "sni=three.test", 1);
    assert_eq!((&rows[0]["reason"], &rows[0]["endpoint"]), (&"refused:no-route".into(), &().into()));
    let rows = await_finished(&tieline, "sni=two.test", 1);
    assert_eq!(rows[0]["endpoint"], two.to_string());
}

#[test]
fn a_trusted_proxy_names_the_client_and_its_header_is_required() {
    let echo = TcpServer::echo();
    let config = OneRoute {
        listener: "proxy_protocol = \"required\"\ntrusted = [\"127.0.0.1\"]\n\
                   timeouts = { handshake = \"6s\" }",
        ..OneRoute::default()
    };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    let mut client = connect(address);
    client.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n").unwrap();
    assert_echoes(&mut client);
    let row = &live(&tieline, "remote=192.0.2.7")[0];
    assert_eq!(row["client"], "192.0.2.7:4711");
    assert_eq!(row["peer"], client.local_addr().unwrap().to_string());

    let mut without = connect(address);
    without.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_closed(&without);
    assert_eq!(reason_of(&tieline, &without), "protocol-error");
    assert_eq!(refusal(&tieline, address), "timeout:handshake", "no header at all");
    assert_eq!(echo.accepted(), 1);
}

#[test]
fn a_proxy_header_from_a_source_not_trusted_is_refused_before_it_is_read() {
    let echo = TcpServer::echo();
    let config = OneRoute {
        listener: "proxy_protocol = \"required\"\ntrusted = [\"10.0.0.0/8\"]",
        ..OneRoute::default()
    };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    let mut client = connect(address);
    let _ = client.write_all(b"PROXY TCP4 10.0.0.7 198.51.100.1 4711 443\r\n"); // it may be closed already
    assert_closed(&client);
    assert_eq!(reason_of(&tieline, &client), "refused:untrusted");
    assert_eq!(echo.accepted(), 0);
}

#[test]
fn haproxy_before_us_tells_the_client_and_we_tell_nginx_behind_us() {
    let origin = loopback(free_port());
    let seen = "$proxy_protocol_addr $proxy_protocol_port";
    let body = format!("server {{ listen {origin} proxy_protocol; return 200 \"{seen}\"; }}");
    let _nginx = Nginx::http(&body, origin);
    for version in ["v1", "v2"] {
        let config = OneRoute {
            listener: "proxy_protocol = \"required\"\ntrusted = [\"127.0.0.1\"]",
            upstream: &format!("proxy_protocol = \"{version}\""),
            ..OneRoute::default()
        };
        let (tieline, address) = start(&config.to(&[origin]));
        let front = loopback(free_port());
        let defaults = "defaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m";
        let send = if version == "v1" { "send-proxy" } else { "send-proxy-v2" };
        let listen = format!("listen web\n bind {front}\n server one {address} {send}");
        let _haproxy = Haproxy::start(&format!("{defaults}\n{listen}"), front);
        let mut client = connect(front);
        let me = client.local_addr().unwrap();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with(&format!("{} {}", me.ip(), me.port())), "{version}: {me} in {answer}");
        drop(client);
        let rows = await_finished(&tieline, "bytes>1B", 1);
        assert!(rows.iter().any(|row| row["client"] == me.to_string()), "{rows:#?}");
        assert!(story(&tieline, &rows[0]).contains("by its PROXY header"));
    }
}

#[test]
fn a_plain_client_is_named_to_haproxy_that_accepts_proxy_headers() {
    let http = HttpServer::start();
    http.write("small.txt", b"small");
    let behind = loopback(free_port());
    let defaults = "defaults\n mode http\n timeout connect 5s\n timeout client 1m\n timeout server 1m";
    let listen = format!(
        "listen web\n bind {behind} accept-proxy\n http-response set-header x-client %[src]:%[src_port]\n \
         server one {}",
        http.address()
    );
    let _haproxy = Haproxy::start(&format!("{defaults}\n{listen}"), behind);
    let config = OneRoute { upstream: "proxy_protocol = \"v2\"", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[behind]));
    let answer = http_over_tcp(address, "GET", "/small.txt", &[], b"").unwrap();
    let rows = await_finished(&tieline, "", 1);
    assert_eq!(answer.header("x-client"), rows[0]["client"].as_str());
}

#[test]
fn what_one_side_sends_before_it_is_asked_arrives_whole_and_in_order() {
    let greeter = TcpServer::named("220 ready\r\n");
    let (_tieline, address) = start(&OneRoute::default().to(&[greeter.address()]));
    let mut client: TcpStream = connect(address);
    client.write_all(b"HELO\r\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "220 ready\r\nHELO\r\n");
}
