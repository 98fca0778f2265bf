//! Two HTTP listeners, one of them under TLS, before small web services: what a stranger tries with curl in a
//! minute.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Context;
use tieline_base::Address;

use super::{FOLDER, free_or_any, listener, shown, tried};
use crate::house::House;

/// The services.
pub(super) struct Web {
    shop: [SocketAddr; 2],
    news: SocketAddr,
    news_next: SocketAddr,
    orders: SocketAddr,
}

/// The interface that orders must keep to.
const DOCUMENT: &str = r#"# What `tieline demo` lets through to its orders.
openapi: 3.1.0
info: { title: orders, version: "1" }
paths:
  /orders:
    get:
      parameters:
        - { name: limit, in: query, schema: { type: integer, minimum: 1, maximum: 100 } }
      responses: { "200": { description: the orders } }
    post:
      requestBody:
        required: true
        content:
          application/json:
            schema:
              type: object
              required: [item, count]
              additionalProperties: false
              properties:
                item: { type: string, minLength: 1 }
                count: { type: integer, minimum: 1, maximum: 99 }
      responses: { "200": { description: it is on its way } }
"#;

impl Web {
    pub(super) fn start() -> anyhow::Result<Web> {
        let service = |name, after| {
            let serving = serve(name, Duration::from_millis(after));
            serving.with_context(|| format!("cannot start the service {name}"))
        };
        Ok(Web {
            shop: [service("shop", 5)?, service("shop, a slow one", 40)?],
            news: service("news", 2)?,
            news_next: service("news of tomorrow", 2)?,
            orders: service("orders", 2)?,
        })
    }

    /// The name and the text of the document that the config names.
    pub(super) fn document(&self) -> (&'static str, &'static str) {
        ("demo.openapi.yaml", DOCUMENT)
    }

    pub(super) fn config(&self) -> String {
        let (web, secure) = (free_or_any("127.0.0.1:8080"), free_or_any("127.0.0.1:8443"));
        let Web { shop: [shop, slow], news, news_next, orders } = self;
        format!(
            r#"
[listener.web]
bind = "{web}"
protocol = "http"
limits = {{ connections = 1000, body = "1MiB" }}

[[listener.web.route]]
name = "shop"
upstream = "shop"
allow = {{ from = ["127.0.0.0/8"] }}

# A canary: one of four gets the next version, and stays with it.
[[listener.web.route]]
name = "news"
path = "/news"
upstream = [{{ name = "news", weight = 3 }}, {{ name = "news-next", weight = 1 }}]
session = {{ cookie = "demo_session", ttl = "1h" }}
access = "public"

[[listener.web.route]]
name = "orders"
path = "/orders"
api = "demo.openapi.yaml"
upstream = "orders"
access = "public"

[[listener.web.route]]
name = "hurry"
path = "= /hurry"
respond = {{ status = 200, body = "in time\n" }}
rate = {{ rate = "10/m", burst = 3, tell = true }}
access = "public"

[[listener.web.route]]
name = "teapot"
path = "= /teapot"
respond = {{ status = 418, body = "short and stout\n" }}
access = "public"

# HTTP/2 by ALPN, and HTTP/1.1 for those who do not speak it.
[listener.secure]
bind = "{secure}"
protocol = "http"
tls = "self-signed"

[[listener.secure.route]]
name = "secure-shop"
upstream = "shop"
allow = {{ from = ["127.0.0.0/8"] }}

[upstream.shop]
endpoints = ["{shop}", "{slow}"]
health = {{ http = "/", every = "2s" }}

[upstream.news]
endpoints = ["{news}"]

[upstream.news-next]
endpoints = ["{news_next}"]

[upstream.orders]
endpoints = ["{orders}"]
"#
        )
    }

    pub(super) fn what_there_is(&self, house: &House) -> String {
        let (web, secure) = (shown(house, "web"), shown(house, "secure"));
        format!(
            "  web        http://{web}/ before two shops, one slow; /news has a canary, /orders an interface,
             /hurry a rate, /teapot an answer of its own
  secure     https://{secure}/ the shops, by HTTP/2, with a certificate made at the start\n"
        )
    }

    pub(super) fn what_to_try(&self, house: &House) -> String {
        let (web, secure) = (shown(house, "web"), shown(house, "secure"));
        let port = secure.rsplit_once(':').map_or("", |(_, port)| port);
        let order = format!("curl -i http://{web}/orders --json '{{\"item\":\"tea\",\"count\":0}}'");
        [
            tried(&format!("curl -i http://{web}/hello"), "which shop answers, and what it was told of you"),
            tried(&format!("curl -ki https://localhost:{port}/hello"), "the same by HTTP/2 and TLS"),
            tried(&format!("curl http://{web}/news"), "a few times: one of four is of tomorrow; with"),
            tried("", "`-b jar -c jar` you stay where you were first"),
            tried(&order, ""),
            tried("", &format!("refused: {FOLDER}/demo.openapi.yaml says")),
            tried("", "why; a count of 2 is let through"),
            tried(&format!("curl -i http://{web}/hurry"), "four times: the fourth comes too early"),
        ]
        .concat()
    }

    /// One who looks around again and again.
    pub(super) fn traffic(&self, house: &House) {
        let Some(Address::Socket(web)) = listener(house, "web") else { return };
        std::thread::spawn(move || {
            loop {
                // Whoever was cut off comes again.
                let _ = browse(web);
                std::thread::sleep(Duration::from_secs(1));
            }
        });
    }
}

/// A service on a free port that says its name and what it was told, each request answered `after` so long.
fn serve(name: &'static str, after: Duration) -> io::Result<SocketAddr> {
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
    let mut requests = BufReader::new(client);
    while let Ok(Some(asked)) = Asked::read(&mut requests) {
        std::thread::sleep(after);
        let body = format!("{name} was asked: {}\n{}", asked.line, asked.told);
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
        if client.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

/// A request, as far as the services here look at it.
#[derive(PartialEq, Eq, Debug)]
struct Asked {
    line: String,
    /// What it was told of its client, and the body, a line each.
    told: String,
}

/// More than that of a body no service here takes.
const BODY_MAX: u64 = 1 << 20;

impl Asked {
    /// Reads the next one; `None` at the end.
    fn read(from: &mut impl BufRead) -> io::Result<Option<Asked>> {
        let mut asked = Asked { line: String::new(), told: String::new() };
        let (mut length, mut chunked) = (0, false);
        if from.read_line(&mut asked.line)? == 0 {
            return Ok(None);
        }
        asked.line.truncate(asked.line.trim_end().len());
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().map_err(io::Error::other)?,
                "transfer-encoding" => chunked = true,
                "via" | "x-forwarded-for" | "x-forwarded-proto" => {
                    asked.told += &format!("  {name}: {value}\n");
                }
                _ => {}
            }
        }
        let body = if chunked { chunks(from)? } else { exactly(from, length)? };
        if !body.is_empty() {
            asked.told += &format!("  {}\n", String::from_utf8_lossy(&body));
        }
        Ok(Some(asked))
    }
}

fn exactly(from: &mut impl BufRead, length: u64) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let came = from.take(length.min(BODY_MAX)).read_to_end(&mut body)?;
    if came as u64 == length { Ok(body) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// A body in chunks, as Tieline frames them: without extensions and trailers.
fn chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        body.extend(exactly(from, length)?);
        from.read_line(&mut String::new())?;
        if length == 0 || body.len() as u64 > BODY_MAX {
            return Ok(body);
        }
    }
}

/// One who looks around: several requests over one connection, then away.
fn browse(address: SocketAddr) -> io::Result<()> {
    let stream = TcpStream::connect(address)?;
    let mut answers = BufReader::new(&stream);
    for page in ["/", "/news", "/orders?limit=10", "/teapot", "/nowhere"] {
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
        io::copy(&mut Read::take(&mut answers, length), &mut io::sink())?;
        std::thread::sleep(Duration::from_millis(400));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_reads_bodies_of_both_kinds_and_what_follows_them() {
        let mut bytes = &b"POST /a HTTP/1.1\r\nVia: 2 me\r\nTransfer-Encoding: chunked\r\n\r\n\
                           3\r\ntea\r\n0\r\n\r\n\
                           POST /b HTTP/1.1\r\nContent-Length: 4\r\n\r\nmilkGET /c HTTP/1.1\r\n\r\n"[..];
        let mut next = || Asked::read(&mut bytes).unwrap();
        let asked = |line: &str, told: &str| Some(Asked { line: line.into(), told: told.into() });
        assert_eq!(next(), asked("POST /a HTTP/1.1", "  Via: 2 me\n  tea\n"));
        assert_eq!(next(), asked("POST /b HTTP/1.1", "  milk\n"));
        assert_eq!((next(), next()), (asked("GET /c HTTP/1.1", ""), None));
        assert!(Asked::read(&mut &b"GET / HTTP/1.1\r\n"[..]).is_err());
    }
}
