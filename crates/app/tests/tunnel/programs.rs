//! Programs of others through a tunnel that is cut meanwhile: ssh, scp, psql and curl.

use std::fs;
use std::process::Command;

use tieline_testkit::{PATIENCE, Postgres, Sshd, TcpServer, finish, program, wait_until};

use crate::site::{Site, TCP};
use crate::support::await_live;

#[test]
fn scp_carries_a_file_whole_through_cuts() {
    let sshd = Sshd::start();
    let site = Site::start(TCP, sshd.address());
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let content: Vec<u8> =
        (0..8_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(&from, &content).unwrap();
    let mut scp = sshd.scp(site.address());
    scp.arg(&from).arg(format!("server:{}", to.display()));
    std::thread::scope(|scope| {
        let copied = scope.spawn(move || finish(&mut scp).expect("scp"));
        for _ in 0..3 {
            let before = site.cable.carried();
            let moves = || site.cable.carried() > before + 500_000 || copied.is_finished();
            assert!(wait_until(PATIENCE, moves), "stuck");
            site.cable.cut();
        }
        copied.join().unwrap();
    });
    assert!(fs::read(&to).unwrap() == content, "the copy differs");
    let said = finish(sshd.ssh(site.address()).arg("echo hello")).expect("ssh");
    assert_eq!(said.trim(), "hello");
}

#[test]
fn a_pool_of_postgres_servers_reaches_through_the_tunnel() {
    let postgres = Postgres::start();
    let config = "protocol = \"postgres\"\ntls = \"off\"\npool = { mode = \"transaction\", size = 1 }\n\
                  [listener.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
                  [[listener.web.route]]\nupstream = \"service\"\naccess = \"public\"\n\
                  [server]\nworkers = 1\n";
    let site = Site::start(config, postgres.address());
    let ask = |sql: &str| postgres.psql(site.address(), "postgres", &["-Atc", sql]).expect("psql");
    let first = ask("select pg_backend_pid()");
    // The server's connection is the same, the link's is not.
    site.cable.cut();
    assert_eq!(ask("select pg_backend_pid()"), first);
    let transaction = "begin; select pg_sleep(0.2); select count(*) from generate_series(1, 100000); commit";
    std::thread::scope(|scope| {
        let counted = scope.spawn(|| ask(transaction));
        await_live(&site.server, "listener=web stage=relay", 1);
        site.cable.cut();
        assert!(counted.join().unwrap().contains("100000"));
    });
}

#[test]
fn requests_of_http_go_through_the_tunnel_and_its_connections_rest_there() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let far = TcpServer::scripted(move |mut stream| {
        use std::io::{Read, Write};
        let mut heard = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let length = stream.read(&mut piece)?;
            if length == 0 {
                return Ok(());
            }
            heard.extend_from_slice(&piece[..length]);
            while let Some(end) = heard.windows(4).position(|window| window == b"\r\n\r\n") {
                heard.drain(..end + 4);
                stream.write_all(answer)?;
            }
        }
    });
    // Where there are several, each worker may make one.
    let config = TCP.replace("\"tcp\"", "\"http\"") + "[server]\nworkers = 1\n";
    let site = Site::start(&config, far.address());
    let url = format!("http://{}/", site.address());
    for _ in 0..5 {
        let mut curl = Command::new(program("curl"));
        assert_eq!(finish(curl.args(["-sS", "-m", "20", &url])).expect("curl"), "hello");
        site.cable.cut();
    }
    assert_eq!(far.accepted(), 1, "a connection that rests is used again, whatever carries it");
}
