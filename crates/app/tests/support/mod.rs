//! What the tests of the real binary share: a config of one route, clients, and questions to the live table.
#![allow(dead_code, reason = "each test program uses its part of it")]

use std::fmt::Display;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};
use tieline_base::Clock;
use tieline_testkit::{PATIENCE, Tieline, wait_for, wait_until};

/// A config of the listener `web`, whose only route leads to the upstream `service`: each field adds lines to
/// its block. The route is public unless `route` says who may pass.
#[derive(Clone, Copy, Default)]
pub(crate) struct OneRoute<'a> {
    /// `tcp` if empty.
    pub(crate) protocol: &'a str,
    pub(crate) server: &'a str,
    pub(crate) listener: &'a str,
    pub(crate) route: &'a str,
    pub(crate) upstream: &'a str,
}

impl OneRoute<'_> {
    /// The config with these endpoints.
    pub(crate) fn to(self, endpoints: &[SocketAddr]) -> String {
        self.to_endpoints(&endpoints.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>())
    }

    /// The config with endpoints as the file writes them.
    pub(crate) fn to_endpoints(self, endpoints: &[impl Display]) -> String {
        let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        let workers = if self.server.contains("workers") { "" } else { "workers = 2" };
        let access = if self.route.contains("access") { "" } else { "access = \"public\"" };
        let bind = if self.listener.contains("bind") { "" } else { "bind = \"127.0.0.1:0\"" };
        let OneRoute { protocol, server, listener, route, upstream } = self;
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        format!(
            "[server]\n{workers}\n{server}\n\
             [listener.web]\n{bind}\nprotocol = \"{protocol}\"\n{listener}\n\
             [[listener.web.route]]\nupstream = \"service\"\n{access}\n{route}\n\
             [upstream.service]\nendpoints = [{}]\n{upstream}\n",
            endpoints.join(", ")
        )
    }
}

/// A running server of [`OneRoute`], and the address of its listener.
pub(crate) fn start(config: &str) -> (Tieline, SocketAddr) {
    let tieline = Tieline::start(config);
    let address = tieline.listener_address("web");
    (tieline, address)
}

/// A connection whose reads fail when the test has lost its patience.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero can be set");
    stream
}

/// [`connect`] from another address of this machine.
pub(crate) fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("all of 127/8 is this machine's");
    socket.connect(&to.into()).unwrap_or_else(|error| panic!("{to}: {error}"));
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero can be set");
    socket.into()
}

/// Several connections that are known to be relayed: each has had its echo.
pub(crate) fn connect_relayed(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut clients: Vec<TcpStream> = (0..count).map(|_| connect(address)).collect();
    clients.iter_mut().for_each(assert_echoes);
    clients
}

/// Whether what is sent comes back.
pub(crate) fn echoes(stream: &mut (impl Read + Write)) -> bool {
    let mut heard = [0; 4];
    stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut heard)).is_ok() && &heard == b"ping"
}

/// Sends four bytes and wants them back.
#[track_caller]
pub(crate) fn assert_echoes(stream: &mut TcpStream) {
    assert!(echoes(stream), "no echo at {:?}", stream.local_addr());
}

/// [`assert_echoes`] over a unix socket.
#[track_caller]
pub(crate) fn assert_unix_echoes(stream: &mut UnixStream) {
    assert!(echoes(stream), "no echo over the unix socket");
}

/// What the first bytes of a connection to `address` are: the name of the service that took it.
pub(crate) fn name_heard(address: SocketAddr) -> Option<u8> {
    let mut first = [0];
    connect(address).read_exact(&mut first).ok().map(|()| first[0])
}

/// Waits for the far end to close, in order or by a reset; what else came is lost.
///
/// # Panics
/// If it stays open.
#[track_caller]
pub(crate) fn assert_closed(mut stream: &TcpStream) {
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("the connection stays open: {error}"),
        }
    }
}

/// Closes with a reset, as a vanished program or host does.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket can linger");
}

/// The live rows that match `filter`.
#[track_caller]
pub(crate) fn live(tieline: &Tieline, filter: &str) -> Vec<Value> {
    rows(tieline, filter, false)
}

/// The finished rows that match `filter`, the latest first.
#[track_caller]
pub(crate) fn finished(tieline: &Tieline, filter: &str) -> Vec<Value> {
    rows(tieline, filter, true)
}

#[track_caller]
fn rows(tieline: &Tieline, filter: &str, finished: bool) -> Vec<Value> {
    let encoded = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    let filter: String = filter.bytes().map(encoded).collect();
    let page = tieline.get(&format!("/api/v1/connections?filter={filter}&finished={finished}&limit=100000"));
    page["connections"].as_array().cloned().unwrap_or_default()
}

/// Waits until exactly `count` rows that match `filter` live.
#[track_caller]
pub(crate) fn await_live(tieline: &Tieline, filter: &str, count: usize) -> Vec<Value> {
    let found = wait_for(PATIENCE, || Some(live(tieline, filter)).filter(|rows| rows.len() == count));
    found.unwrap_or_else(|| panic!("not {count} live with {filter:?}: {:#?}", live(tieline, "")))
}

/// Waits until `count` rows that match `filter` have finished; hands back all of them.
#[track_caller]
pub(crate) fn await_finished(tieline: &Tieline, filter: &str, count: usize) -> Vec<Value> {
    let found = wait_for(PATIENCE, || Some(finished(tieline, filter)).filter(|rows| rows.len() >= count));
    found.unwrap_or_else(|| panic!("not {count} finished with {filter:?}: {:#?}", finished(tieline, "")))
}

/// The one row for the client `stream`, living or finished, once there is one.
#[track_caller]
pub(crate) fn row_of(tieline: &Tieline, stream: &TcpStream) -> Value {
    let me = stream.local_addr().expect("a connected socket has an address").to_string();
    let mine = |rows: Vec<Value>| rows.into_iter().find(|row| row["client"] == me.as_str());
    let row = wait_for(PATIENCE, || mine(live(tieline, "")).or_else(|| mine(finished(tieline, ""))));
    row.unwrap_or_else(|| panic!("no row for {me}"))
}

/// Waits for the end of `stream`'s connection and tells its reason.
#[track_caller]
pub(crate) fn reason_of(tieline: &Tieline, stream: &TcpStream) -> String {
    let me = stream.local_addr().expect("a connected socket has an address").to_string();
    let ended = wait_for(PATIENCE, || {
        let rows = finished(tieline, "");
        let row = rows.iter().find(|row| row["client"] == me.as_str())?;
        row["reason"].as_str().map(str::to_owned)
    });
    ended.unwrap_or_else(|| panic!("{me} does not end: {:#?}", live(tieline, "")))
}

/// Connects, waits for the end, and tells its reason: for connections that are refused.
#[track_caller]
pub(crate) fn refusal(tieline: &Tieline, address: SocketAddr) -> String {
    let stream = connect(address);
    assert_closed(&stream);
    reason_of(tieline, &stream)
}

/// The story of a row, as `show` tells it: every station with its detail, one a line.
#[track_caller]
pub(crate) fn story(tieline: &Tieline, row: &Value) -> String {
    let story = tieline.get(&format!("/api/v1/connections/{}", row["id"]));
    let road = story["road"].as_array().into_iter().flatten();
    let stations = road.map(|mark| {
        format!("{}: {}", mark["stage"].as_str().unwrap_or("?"), mark["detail"].as_str().unwrap_or(""))
    });
    let end = story["detail"].as_str().map(|detail| format!("end: {detail}"));
    stations.chain(end).collect::<Vec<_>>().join("\n")
}

/// Orders something by the admin API, which must agree; hands back its answer.
#[track_caller]
pub(crate) fn order(tieline: &Tieline, target: &str) -> Value {
    order_with(tieline, target, &json!({}))
}

/// [`order`] with a body.
#[track_caller]
pub(crate) fn order_with(tieline: &Tieline, target: &str, body: &Value) -> Value {
    let (status, answer) = tieline.api("POST", target, body);
    assert_eq!(status, 200, "POST {target}: {answer}");
    answer
}

/// The endpoint called `label` of the upstream `service`, as the API shows it.
#[track_caller]
pub(crate) fn endpoint(tieline: &Tieline, label: &str) -> Option<Value> {
    let upstreams = tieline.get("/api/v1/upstreams");
    let service = upstreams.as_array()?.iter().find(|upstream| upstream["name"] == "service")?;
    service["endpoints"].as_array()?.iter().find(|endpoint| endpoint["label"] == label).cloned()
}

/// Waits until the endpoint called `label` stands as `state`.
#[track_caller]
pub(crate) fn await_endpoint(tieline: &Tieline, label: &str, state: &str) {
    let stands = || endpoint(tieline, label).is_some_and(|endpoint| endpoint["state"] == state);
    assert!(wait_until(PATIENCE, stands), "{label} is not {state}: {}", tieline.get("/api/v1/upstreams"));
}

/// How many ends of pipes two workers may keep for the next bulk transfer.
const PIPE_ENDS_KEPT: usize = 2 * 32 * 2;

/// Waits until nothing lives and the file descriptors are back at `baseline`, give or take what the admin API
/// holds for a moment and the pipes that workers keep.
#[track_caller]
pub(crate) fn assert_back_at(tieline: &Tieline, baseline: usize) {
    assert!(wait_until(PATIENCE, || live(tieline, "").is_empty()), "{:#?}", live(tieline, ""));
    let few = || tieline.fd_count() <= baseline + 2 + tieline.pipe_end_count().min(PIPE_ENDS_KEPT);
    assert!(wait_until(PATIENCE, few), "{} descriptors, {baseline} before", tieline.fd_count());
}

/// A day of the week on which it is not now, nor for more than a day to come.
pub(crate) fn another_day() -> &'static str {
    let days_since_1970 =
        Clock::wall().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs() / 86_400;
    // 1970-01-01 was a Thursday.
    ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][((days_since_1970 + 3) % 7) as usize]
}
