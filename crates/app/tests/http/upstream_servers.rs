//! HTTP/2 and TLS towards real servers: nginx, Apache, and gRPC's own.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;

use tempfile::TempDir;
use tieline_testkit::{
    Apache, Authority, Finished, GrpcServer, HttpConversation, Nginx, PATIENCE, finish, free_port, loopback,
    program, wait_until,
};

use crate::site::{HTTP, Site, request};
use crate::support::{OneRoute, await_endpoint, reason_of, row_of, story};

/// Where Debian puts Apache's modules.
const MODULES: &str = "/usr/lib/apache2/modules";

fn with(upstream: &str, endpoint: SocketAddr) -> Site {
    Site::start(&OneRoute { upstream, ..HTTP }.to(&[endpoint]))
}

/// Bytes that repeat nowhere nearby.
fn noise(length: u32) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn curl(site: &Site, arguments: &[&str], name: &str) -> Finished {
    let url = format!("http://{}/{name}", site.address);
    finish(Command::new(program("curl")).args(["-sS", "--max-time", "30"]).args(arguments).arg(url))
}

/// An Apache that serves the files of a folder in HTTP/2 without TLS.
fn apache(folder: &TempDir) -> Apache {
    Apache::start(&format!(
        "LoadModule http2_module {MODULES}/mod_http2.so\nProtocols h2c http/1.1\nDocumentRoot {}\n",
        folder.path().display()
    ))
}

#[test]
fn apache_serves_files_in_http_2() {
    let folder = tempfile::tempdir().unwrap();
    let content = noise(3 << 20);
    fs::write(folder.path().join("large"), &content).unwrap();
    fs::write(folder.path().join("small"), "small").unwrap();
    let apache = apache(&folder);
    let site = with("http_version = \"2\"", apache.address());
    let mut client = site.connect();
    for _ in 0..20 {
        assert_eq!(client.ask(&request("/small", &[])).text(), "small");
    }
    let head = client.ask(&request("/small", &[]).replacen("GET", "HEAD", 1));
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    let tag = head.header("etag").unwrap();
    let again = client.ask(&request("/small", &[&format!("If-None-Match: {tag}")]));
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(client.ask(&request("/small", &["Range: bytes=1-2"])).text(), "ma");
    assert_eq!(client.ask(&request("/none", &[])).status, 404);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert!(site.connect().ask(&request("/large", &[])).body == content));
        }
    });
    let log = apache.access_log();
    assert!(log.iter().all(|line| line.contains(" HTTP/2.0\"")), "{log:#?}");
}

/// An nginx that serves and takes the files of a folder over TLS, in HTTP/2 if `version` says so.
struct Secure {
    folder: TempDir,
    authority: Authority,
    address: SocketAddr,
    _nginx: Nginx,
}

impl Secure {
    fn start(version: &str) -> Secure {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let (pair, address) = (authority.server(&["shop.test"]), loopback(free_port()));
        let root = folder.path().display();
        let server = format!(
            "listen {address} ssl {version}; root {root}; access_log {root}/log who; ssl_certificate {}; \
             ssl_certificate_key {}; location / {{ dav_methods PUT; client_max_body_size 0; }}",
            pair.certificate.display(),
            pair.key.display()
        );
        let format = "log_format who '$connection $server_protocol $ssl_server_name $status';";
        let nginx = Nginx::http(&format!("{format} server {{ {server} }}"), address);
        Secure { folder, authority, address, _nginx: nginx }
    }

    /// Tieline before it, which trusts its authority.
    fn site(&self, version: &str) -> Site {
        self.site_with(version, "", &self.authority)
    }

    fn site_with(&self, version: &str, more: &str, trusted: &Authority) -> Site {
        let ca = trusted.ca();
        let tls = format!("tls = {{ ca = \"{}\", server_name = \"shop.test\" }}", ca.display());
        with(&format!("http_version = \"{version}\"\n{tls}\n{more}"), self.address)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.folder.path().join(name), content).unwrap();
    }

    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn await_log(&self, lines: usize) -> Vec<String> {
        assert!(wait_until(PATIENCE, || self.log().len() >= lines), "{:#?}", self.log());
        self.log()
    }
}

#[test]
fn large_files_go_both_ways_over_tls() {
    let nginx = Secure::start("http2");
    let content = noise(16 << 20);
    nginx.write("down", &content);
    let site = nginx.site("2");
    let local = tempfile::tempdir().unwrap();
    let copy = local.path().join("copy");
    curl(&site, &["-o", copy.to_str().unwrap()], "down").expect("curl");
    assert!(fs::read(&copy).unwrap() == content);
    for (name, field) in [("sized", "X-Sized: yes"), ("chunked", "Transfer-Encoding: chunked")] {
        let arguments = ["-T", copy.to_str().unwrap(), "-H", field, "-H", "Expect:", "-w", "%{http_code}"];
        assert_eq!(curl(&site, &arguments, name).expect("curl"), "201", "{name}");
        assert!(fs::read(nginx.folder.path().join(name)).unwrap() == content, "{name}");
    }
    let log = nginx.await_log(3);
    assert!(log.iter().all(|line| line.contains("HTTP/2.0 shop.test 20")), "{log:#?}");
}

#[test]
fn auto_is_what_the_endpoint_agrees_to() {
    for (listens, spoken) in [("http2", "HTTP/2.0"), ("", "HTTP/1.1")] {
        let nginx = Secure::start(listens);
        nginx.write("small", b"small");
        let site = nginx.site("auto");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = site.connect();
                    for _ in 0..10 {
                        assert_eq!(client.ask(&request("/small", &[])).text(), "small");
                    }
                });
            }
        });
        let log = nginx.await_log(40);
        assert!(log.iter().all(|line| line.contains(spoken)), "{log:#?}");
        let mut connections: Vec<_> = log.iter().map(|line| line.split(' ').next()).collect();
        connections.sort_unstable();
        connections.dedup();
        // One for each worker, or one for each client and worker.
        let most = if listens == "http2" { 2 } else { 8 };
        assert!(connections.len() <= most, "{log:#?}");
    }
}

#[test]
fn with_auto_an_upgrade_gets_a_connection_of_http_1_1() {
    let nginx = Secure::start("http2");
    nginx.write("small", b"small");
    let site = nginx.site("auto");
    let mut client = site.connect();
    assert_eq!(client.ask(&request("/small", &[])).status, 200);
    // nginx does not switch, and says so by answering.
    let upgrade = ["Connection: Upgrade", "Upgrade: websocket"];
    assert_eq!(client.ask(&request("/small", &upgrade)).text(), "small");
    assert_eq!(client.ask(&request("/small", &[])).status, 200);
    let versions: Vec<String> =
        nginx.await_log(3).iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(versions, ["HTTP/2.0", "HTTP/1.1", "HTTP/2.0"]);
}

/// The reason of a request that fails, and what its connection's story says.
#[track_caller]
fn failure(site: &Site) -> (u16, String, String) {
    let mut client: HttpConversation = site.connect();
    // The connection would go on behind it.
    let status = client.ask(&request("/", &["Connection: close"])).status;
    let reason = reason_of(&site.tieline, client.stream());
    (status, reason, story(&site.tieline, &row_of(&site.tieline, client.stream())))
}

#[test]
fn an_endpoint_that_does_not_agree_is_a_502_that_says_so() {
    let nginx = Secure::start("");
    let (status, reason, told) = failure(&nginx.site("2"));
    assert_eq!((status, reason.as_str()), (502, "unreachable"));
    assert!(told.contains("\"h2\"") || told.contains("NoApplicationProtocol"), "{told}");
}

#[test]
fn a_stranger_is_a_502_that_says_so() {
    let (nginx, other) = (Secure::start("http2"), Authority::new());
    let (status, reason, told) = failure(&nginx.site_with("2", "", &other));
    assert_eq!((status, reason.as_str()), (502, "unreachable"));
    assert!(told.contains("the upstream's certificate is refused"), "{told}");
}

#[test]
fn checks_go_over_tls_in_the_version_that_is_agreed_on() {
    let health = "health = { http = \"/healthz\", every = \"100ms\", timeout = \"10s\", rise = 1, fall = 1 }";
    for (listens, version, spoken) in [
        ("http2", "2", "HTTP/2.0"),
        ("http2", "auto", "HTTP/2.0"),
        ("", "auto", "HTTP/1.1"),
        ("", "1.1", "HTTP/1.1"),
    ] {
        let nginx = Secure::start(listens);
        nginx.write("healthz", b"well");
        let site = nginx.site_with(version, health, &nginx.authority);
        let log = nginx.await_log(3);
        assert!(log.iter().all(|line| line.contains(&format!("{spoken} shop.test 200"))), "{log:#?}");
        await_endpoint(&site.tieline, &nginx.address.to_string(), "healthy");
        fs::remove_file(nginx.folder.path().join("healthz")).unwrap();
        await_endpoint(&site.tieline, &nginx.address.to_string(), "unhealthy");
    }
    let (nginx, other) = (Secure::start("http2"), Authority::new());
    nginx.write("healthz", b"well");
    let site = nginx.site_with("2", health, &other);
    await_endpoint(&site.tieline, &nginx.address.to_string(), "unhealthy");
}

/// A call of gRPC in HTTP/1.1: its messages, each with its length, and the trailers.
fn call(site: &Site, method: &str, messages: &[&[u8]]) -> (Vec<u8>, String) {
    let framed = |message: &&[u8]| [&[0, 0, 0, 0, message.len() as u8], *message].concat();
    let body: Vec<u8> = messages.iter().flat_map(framed).collect();
    let head = format!(
        "POST /tieline.test.Echo/{method} HTTP/1.1\r\nHost: shop.test\r\nContent-Type: application/grpc\r\n\
         TE: trailers\r\nConnection: TE, close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut client = site.connect();
    client.send([head.as_bytes(), &body].concat()).unwrap();
    let answer = String::from_utf8_lossy(&client.rest().unwrap()).into_owned();
    let head = answer.split("\r\n\r\n").next().unwrap().to_owned();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    // What lies between the chunks' sizes is of no interest here.
    (answer.as_bytes()[head.len()..].to_vec(), answer)
}

#[test]
fn calls_of_grpc_reach_a_real_server() {
    let server = GrpcServer::start();
    let site = with("http_version = \"2\"", server.address());
    let (body, answer) = call(&site, "One", &[b"hello"]);
    assert!(body.windows(10).any(|window| window == b"\0\0\0\0\x05hello"), "{answer}");
    assert!(answer.contains("grpc-status: 0\r\n") && answer.contains("x-heard: 5\r\n"), "{answer}");
    let (_, answer) = call(&site, "One", &[b"fail"]);
    assert!(answer.contains("grpc-status: 9\r\n") && answer.contains("as it was told"), "{answer}");
    let (body, answer) = call(&site, "Down", &[b"3"]);
    for number in [b'0', b'1', b'2'] {
        assert!(body.windows(6).any(|window| window == [0, 0, 0, 0, 1, number]), "{answer}");
    }
    let (body, answer) = call(&site, "Up", &[b"a", b"bc", b"d"]);
    assert!(body.windows(9).any(|window| window == b"\0\0\0\0\x04abcd"), "{answer}");
    assert_eq!(call(&site, "Both", &[b"x", b"y"]).1.matches("grpc-status: 0\r\n").count(), 1);
}

#[test]
fn the_health_service_of_grpc_is_asked() {
    let server = GrpcServer::start();
    let health =
        "health = { grpc = \"tieline.test.Echo\", every = \"100ms\", timeout = \"10s\", rise = 1, fall = 1 }";
    let site = with(&format!("http_version = \"2\"\n{health}\npanic = \"0%\""), server.address());
    let label = server.address().to_string();
    await_endpoint(&site.tieline, &label, "healthy");
    call(&site, "One", &[b"health 2"]);
    await_endpoint(&site.tieline, &label, "unhealthy");
}
