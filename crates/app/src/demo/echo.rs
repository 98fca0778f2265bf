//! A TCP listener before two echo services, one of them slow.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Context;
use tieline_base::Address;

use super::{free_or_any, listener, shown, tried};
use crate::house::House;

/// The services.
pub(super) struct Echo {
    fast: SocketAddr,
    slow: SocketAddr,
}

impl Echo {
    pub(super) fn start() -> anyhow::Result<Echo> {
        let fast = serve(Duration::ZERO).context("cannot start the first echo service")?;
        let slow = serve(Duration::from_millis(250)).context("cannot start the second echo service")?;
        Ok(Echo { fast, slow })
    }

    pub(super) fn config(&self) -> String {
        let (bind, Echo { fast, slow }) = (free_or_any("127.0.0.1:7000"), self);
        format!(
            r#"
[listener.echo]
bind = "{bind}"
protocol = "tcp"
limits = {{ connections = 1000, per_ip = 900, accept_rate = "500/s" }}
timeouts = {{ idle = "10m", drain = "5s" }}

[[listener.echo.route]]
name = "echo"
upstream = "echo"
allow = {{ from = ["127.0.0.0/8"] }}

[upstream.echo]
endpoints = ["{fast}", "{slow}"]
health = {{ tcp = true, every = "2s" }}
"#
        )
    }

    pub(super) fn what_there_is(&self, house: &House) -> String {
        let (echo, Echo { fast, slow }) = (shown(house, "echo"), self);
        format!(
            "  echo       {echo} before {fast} and the slow {slow}, balanced by peak-ewma, with
             limits, an allow-list and timeouts; gentle traffic of its own\n"
        )
    }

    pub(super) fn what_to_try(&self, house: &House) -> String {
        let echo = shown(house, "echo");
        let (host, port) = echo.rsplit_once(':').unwrap_or((&echo, ""));
        [
            tried("tieline ls", "who is connected, by which route, to what, for how long"),
            tried("tieline show ID", "one connection's whole story (an id from the list)"),
            tried(
                &format!("tieline kill endpoint={}", self.slow),
                "end what talks to the slow one; look again",
            ),
            tried(&format!("nc {host} {port}"), "speak to an echo service yourself"),
        ]
        .concat()
    }

    /// Gentle traffic: a few who stay and talk now and then, and some who come and go.
    pub(super) fn traffic(&self, house: &House) {
        let Some(Address::Socket(address)) = listener(house, "echo") else { return };
        for client in 0..STAYING {
            std::thread::spawn(move || {
                loop {
                    // A connection that was ended from outside is the demo at work: come again.
                    let _ = talk(address, u32::MAX, Duration::from_millis(700 + 130 * client));
                    std::thread::sleep(Duration::from_secs(1));
                }
            });
        }
        std::thread::spawn(move || {
            loop {
                let _ = talk(address, 3, Duration::from_millis(150));
            }
        });
    }
}

const STAYING: u64 = 5;

/// A service on a free port, each line answered `after` so long.
fn serve(after: Duration) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || answer_lines(&client, after));
        }
    });
    Ok(address)
}

fn answer_lines(mut client: &TcpStream, after: Duration) {
    let mut lines = BufReader::new(client);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        std::thread::sleep(after);
        if client.write_all(&line).is_err() {
            return;
        }
        line.clear();
    }
}

fn talk(address: SocketAddr, lines: u32, pause: Duration) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut answer = String::new();
    for number in 0..lines {
        writeln!(stream, "hello number {number}")?;
        answer.clear();
        if answers.read_line(&mut answer)? == 0 {
            return Ok(());
        }
        std::thread::sleep(pause);
    }
    Ok(())
}
