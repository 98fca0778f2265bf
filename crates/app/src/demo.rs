//! `tieline demo`: everything embedded, nothing to configure.
//!
//! The server is the real one, obeying a config that is written into the demo's folder; only the two echo
//! services and the clients that keep them busy are made up here.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tieline_base::Address;
use tieline_config::Config;

use crate::args::DemoArgs;
use crate::house::House;
use crate::logging::say;
use crate::run;

/// Where the demo keeps its config, its admin socket and its token; the default of `server.data` too, so that
/// `tieline ls` in the same folder finds it.
const FOLDER: &str = "tieline-data";

/// Runs the demo until Ctrl-C.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let fast = echo(Duration::ZERO).context("cannot start the first echo service")?;
    let slow = echo(Duration::from_millis(250)).context("cannot start the second echo service")?;
    let (shop, next) = (
        hello("shop", Duration::from_millis(5)).context("cannot start the first HTTP service")?,
        hello("shop-next", Duration::from_millis(40)).context("cannot start the second HTTP service")?,
    );
    let file = write_config([fast, slow, shop, next])?;
    let checked = Config::load(&file).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the demo's config is refused: {}", lines.join("; "))
    })?;
    run::serve(&file, checked, |house| {
        introduce(house, fast, slow);
        if !args.quiet {
            traffic(house);
        }
    })
}

/// An echo service on a free port, each line answered `after` so long.
fn echo(after: Duration) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || answer_lines(&client, after));
        }
    });
    Ok(address)
}

/// An HTTP service on a free port that says its name, each request answered `after` so long.
fn hello(name: &'static str, after: Duration) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || answer_requests(&client, name, after));
        }
    });
    Ok(address)
}

fn answer_requests(mut client: &TcpStream, name: &str, after: Duration) {
    let mut lines = BufReader::new(client);
    let (mut line, mut asked) = (String::new(), String::new());
    while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
        if asked.is_empty() {
            asked = line.trim_end().to_owned();
        }
        // Requests without a body are all that the demo sends here.
        if line == "\r\n" {
            std::thread::sleep(after);
            let body = format!("{name} was asked: {asked}\n");
            let length = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
            if client.write_all((head + &body).as_bytes()).is_err() {
                return;
            }
            asked.clear();
        }
        line.clear();
    }
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

fn write_config([fast, slow, shop, next]: [SocketAddr; 4]) -> anyhow::Result<PathBuf> {
    let folder = Path::new(FOLDER);
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot make the folder {FOLDER}"))?;
    let (echo, web) = (free_or_any("127.0.0.1:7000"), free_or_any("127.0.0.1:8080"));
    let admin = free_or_any("127.0.0.1:7070");
    let text = format!(
        r#"# Written by `tieline demo`. Copy it, change it, and start it with `tieline run -c FILE`.
[server]
data = "."
access_log = "off"
log = "warn"

[admin]
listen = "{admin}"

[listener.echo]
bind = "{echo}"
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

[listener.web]
bind = "{web}"
protocol = "http"
limits = {{ connections = 1000, body = "1MiB" }}

[[listener.web.route]]
name = "shop"
upstream = "shop"
allow = {{ from = ["127.0.0.0/8"] }}

[[listener.web.route]]
name = "teapot"
path = "= /teapot"
respond = {{ status = 418, body = "short and stout\n" }}
access = "public"

[upstream.shop]
endpoints = ["{shop}", "{next}"]
health = {{ http = "/", every = "2s" }}
"#
    );
    let file = folder.join("demo.toml");
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// `wanted`, or any free port where another program has it.
fn free_or_any(wanted: &str) -> String {
    match TcpListener::bind(wanted) {
        Ok(_) => wanted.into(),
        Err(_) => "127.0.0.1:0".into(),
    }
}

fn introduce(house: &House, fast: SocketAddr, slow: SocketAddr) {
    let address = |name| listener(house, name).map_or("off".into(), |address| address.to_string());
    let (echo, web) = (address("echo"), address("web"));
    let (host, port) = echo.rsplit_once(':').unwrap_or((&echo, ""));
    let admin = house.admin_address().map_or("off".into(), ToString::to_string);
    let token = house.token_file();
    say(&format!(
        "Tieline demo: a TCP listener before two echo services and an HTTP listener before two web services,
one of each pair slow, with gentle traffic.

  web        http://{web}/ (try it: curl -i http://{web}/hello)
  echo       {echo} (limits, an allow-list, timeouts: see {FOLDER}/demo.toml)
  upstream   {fast} fast, {slow} slow; balanced by peak-ewma, checked every 2 s
  admin API  http://{admin}/api/v1/connections   /metrics   /api/v1/openapi.json
  token      {}

Try next, in another terminal in this folder:

  tieline ls                               who is connected, by which route, to what, for how long
  tieline show ID                          one connection's whole story (an id from the list)
  tieline kill endpoint={slow}   end what talks to the slow one, and look again

  (not installed yet? write `cargo run --release --` for `tieline`; speak to it yourself: nc {host} {port})

Ctrl-C drains.",
        token.display()
    ));
}

fn listener(house: &House, name: &str) -> Option<Address> {
    let snapshot = house.server().snapshot();
    let (bound, _) = snapshot.listeners.get(name)?.doors.first()?;
    Some(bound.address().clone())
}

/// Gentle traffic: a few who stay and talk now and then, and some who come and go.
fn traffic(house: &House) {
    if let Some(Address::Socket(web)) = listener(house, "web") {
        std::thread::spawn(move || {
            loop {
                let _ = browse(web);
                std::thread::sleep(Duration::from_secs(1));
            }
        });
    }
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

const STAYING: u64 = 5;

/// One who looks around: several requests over one connection, then away.
fn browse(address: SocketAddr) -> std::io::Result<()> {
    let stream = TcpStream::connect(address)?;
    let mut answers = BufReader::new(&stream);
    for page in ["/", "/cart", "/teapot", "/nowhere"] {
        write!(&stream, "GET {page} HTTP/1.1\r\nHost: shop.example\r\n\r\n")?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if answers.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line == "\r\n" {
                break;
            }
        }
        std::io::copy(&mut std::io::Read::take(&mut answers, length), &mut std::io::sink())?;
        std::thread::sleep(Duration::from_millis(400));
    }
    Ok(())
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
