//! Connections that stop being HTTP, as WebSockets do.

use tieline_testkit::{HttpConversation, PATIENCE, TcpServer, wait_until};

use crate::origin::{OK, Origin, raw};
use crate::site::{Site, config_of, request};
use crate::support::{await_finished, await_live, order_with, reason_of};

const UPGRADE: [&str; 2] = ["Connection: keep-alive, Upgrade", "Upgrade: websocket"];
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Upgrades each connection and then sends everything back.
fn echo() -> TcpServer {
    raw(|mut client| {
        let Some(asked) = client.request()? else { return Ok(()) };
        assert_eq!(
            (asked.header("connection"), asked.header("upgrade")),
            (Some("Upgrade"), Some("websocket"))
        );
        client.send([SWITCHED, "welcome"].concat())?;
        loop {
            match client.take(1) {
                Ok(byte) => client.send(byte)?,
                Err(_) => return client.send("bye"),
            }
        }
    })
}

/// Two routes, one of which the config may leave out.
fn config(echo: &TcpServer, other: &str, with_socket: bool) -> String {
    // By name, or the one that is left would take the name of the one that goes.
    let route = |name: &str, upstream: &str| {
        let head = format!("[[listener.web.route]]\nname = \"{name}\"\npath = \"/{name}\"\n");
        format!("{head}access = \"public\"\n{upstream}\n")
    };
    let socket = route("socket", "upstream = \"echo\"\ngrace = \"0s\"");
    let other = route("other", &format!("respond = {{ status = 200, body = \"{other}\" }}"));
    let upstream = format!("[upstream.echo]\nendpoints = [\"{}\"]\n", echo.address());
    // Something else keeps the upstream in use.
    let kept = route("kept", "upstream = \"echo\"");
    config_of(&[if with_socket { &*socket } else { "" }, &other, &kept, &upstream].concat())
}

#[track_caller]
fn upgraded(site: &Site) -> HttpConversation {
    let mut client = site.connect();
    let answer = client.ask(&request("/socket", &UPGRADE));
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")));
    assert_eq!(answer.header("connection"), Some("Upgrade"));
    assert_eq!(client.take(7).unwrap(), b"welcome");
    assert_echo(&mut client);
    client
}

#[track_caller]
fn assert_echo(client: &mut HttpConversation) {
    client.send("\r\n\0GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(client.take(21).unwrap(), b"\r\n\0GET / HTTP/1.1\r\n\r\n");
}

#[test]
fn bytes_pass_both_ways_and_either_half_may_end() {
    let echo = echo();
    let site = Site::start(&config(&echo, "a", true));
    let mut client = upgraded(&site);
    assert_eq!(await_live(&site.tieline, "", 1)[0]["stage"], "relay");
    client.send("last").unwrap();
    client.finish();
    assert_eq!(client.rest().unwrap(), b"lastbye");
    assert_eq!(reason_of(&site.tieline, client.stream()), "client-closed");
    assert!(wait_until(PATIENCE, || echo.open() == 0));
}

#[test]
fn what_is_sent_before_the_answer_waits_for_it() {
    let echo = echo();
    let site = Site::start(&config(&echo, "a", true));
    let mut client = site.connect();
    client.send(request("/socket", &UPGRADE) + "eager").unwrap();
    assert_eq!(client.answer("GET").unwrap().status, 101);
    assert_eq!(client.take(12).unwrap(), b"welcomeeager");
}

#[test]
fn an_upgrade_that_is_refused_leaves_http() {
    let origin = Origin::ok();
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    // The second request stands where bytes of the new protocol would.
    client.send(request("/1", &UPGRADE) + &request("/2", &[])).unwrap();
    assert_eq!((client.answer("GET").unwrap().status, client.answer("GET").unwrap().status), (200, 200));
    assert_eq!((origin.asked().target(), origin.asked().target()), ("/1", "/2"));
}

#[test]
fn only_a_get_without_a_body_for_one_protocol_can_upgrade() {
    let origin = Origin::start(|asked| if asked.header("upgrade").is_some() { SWITCHED } else { OK }.into());
    let site = Site::to(&[origin.address()]);
    let fields = UPGRADE.join("\r\n");
    for bytes in [
        format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\nContent-Length: 1\r\n\r\nx"),
        format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"),
        request("/", &["Connection: Upgrade", "Upgrade: h2c"]),
        request("/", &["Connection: Upgrade", "Upgrade: websocket, h2c"]),
        request("/", &["Upgrade: websocket"]),
    ] {
        assert_eq!(site.connect().ask(&bytes).status, 200, "{bytes}");
        assert_eq!(origin.asked().header("upgrade"), None, "{bytes}");
    }
}

#[test]
fn a_kill_ends_it() {
    let echo = echo();
    let site = Site::start(&config(&echo, "a", true));
    let (mut killed, mut other) = (upgraded(&site), upgraded(&site));
    let me = killed.stream().local_addr().unwrap();
    let rows = await_live(&site.tieline, "", 2);
    let row = rows.iter().find(|row| row["client"] == me.to_string()).unwrap();
    let filter = format!("id={}", row["id"]);
    let body = serde_json::json!({ "filter": filter, "reason": "enough" });
    order_with(&site.tieline, "/api/v1/connections/kill", &body);
    let _ = killed.rest(); // in order or by a reset
    assert_eq!(reason_of(&site.tieline, killed.stream()), "killed");
    assert_echo(&mut other);
    assert!(wait_until(PATIENCE, || echo.open() == 1));
}

#[test]
fn a_reload_keeps_it_while_its_route_stays() {
    let echo = echo();
    let site = Site::start(&config(&echo, "before", true));
    let mut socket = upgraded(&site);
    let mut plain = site.connect();
    assert_eq!(plain.ask(&request("/other", &[])).text(), "before");
    site.tieline.reload(&config(&echo, "after", true));
    assert_eq!(plain.ask(&request("/other", &[])).text(), "after", "a live connection obeys the new config");
    assert_echo(&mut socket);
    site.tieline.reload(&config(&echo, "after", false));
    let _ = socket.rest(); // in order or by a reset
    await_finished(&site.tieline, "reason=revoked", 1);
    assert_eq!(plain.ask(&request("/socket", &UPGRADE)).status, 404);
}
