//! curl, through Tieline, to nginx.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;
use tieline_testkit::{Finished, Nginx, PATIENCE, finish, free_port, loopback, program, wait_until};

use crate::site::Site;

/// An nginx that serves and takes files, and Tieline before it.
struct Files {
    site: Site,
    directory: TempDir,
    _nginx: Nginx,
}

impl Files {
    fn start() -> Files {
        let directory = tempfile::tempdir().unwrap();
        let (root, address) = (directory.path().display(), loopback(free_port()));
        let format = "log_format who '$connection $request_method $status';";
        let takes = "location / { dav_methods PUT DELETE; client_max_body_size 0; }";
        let server = format!("listen {address}; root {root}; access_log {root}/log who; {takes}");
        let nginx = Nginx::http(&format!("{format} server {{ {server} }}"), address);
        Files { site: Site::to(&[address]), directory, _nginx: nginx }
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.directory.path().join(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.directory.path().join(name)).unwrap()
    }

    fn address(&self) -> SocketAddr {
        self.site.address
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address())
    }

    fn curl(&self, arguments: &[&str], name: &str) -> Finished {
        finish(
            Command::new(program("curl"))
                .args(["-sS", "--max-time", "30"])
                .args(arguments)
                .arg(self.url(name)),
        )
    }
}

/// Bytes that repeat nowhere nearby.
fn noise(length: u32) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn one_connection_carries_many_requests_on_either_side() {
    let files = Files::start();
    files.write("small", b"small");
    let mut curl = Command::new(program("curl"));
    curl.args(["-sS", "-w", "%{num_connects} "]);
    for _ in 0..20 {
        curl.args(["-o", "/dev/null", &files.url("small")]);
    }
    let connects = finish(&mut curl).expect("curl");
    assert_eq!(connects, format!("1{}", " 0".repeat(19)));
    let log = || String::from_utf8(files.read("log")).unwrap();
    assert!(wait_until(PATIENCE, || log().lines().filter(|line| line.ends_with("GET 200")).count() == 20));
    let mut connections: Vec<String> =
        log().lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    connections.dedup();
    assert_eq!(connections.len(), 1, "{}", log());
}

#[test]
fn head_has_the_length_and_no_body() {
    let files = Files::start();
    files.write("small", b"small");
    let answer = files.curl(&["--head"], "small").expect("curl");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("Content-Length: 5"), "{answer}");
}

#[test]
fn what_the_client_has_already_is_not_sent_again() {
    let files = Files::start();
    files.write("small", b"small");
    let head = files.curl(&["--head"], "small").expect("curl");
    let tag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap().trim();
    let field = format!("If-None-Match: {tag}");
    let both = ["-H", &field, "-w", "%{http_code} %{size_download} %{num_connects}\n"];
    let url = files.url("small");
    // A second request on the same connection: nothing of a body was left on it.
    let again = [&both[..], &["-o", "/dev/null", &url, "-o", "/dev/null"]].concat();
    assert_eq!(files.curl(&again, "small").expect("curl"), "304 0 1\n304 0 0");
}

#[test]
fn ranges_are_the_origins_business() {
    let files = Files::start();
    let content = noise(100_000);
    files.write("large", &content);
    let part = finish(Command::new(program("curl")).args(["-sS", "-i", "-r", "10-13", &files.url("large")]));
    let part = part.stdout;
    assert!(part.starts_with("HTTP/1.1 206") && part.contains("Content-Range: bytes 10-13/100000"), "{part}");
    let several = files.curl(&["-r", "0-1,5-6", "-o", "/dev/null", "-w", "%{content_type}"], "large");
    assert!(several.expect("curl").starts_with("multipart/byteranges"));
    let beyond = files.curl(&["-r", "100000-", "-o", "/dev/null", "-w", "%{http_code}"], "large");
    assert_eq!(beyond.expect("curl"), "416");
}

#[test]
fn large_files_go_both_ways_byte_by_byte() {
    let files = Files::start();
    let content = noise(24 << 20);
    files.write("down", &content);
    let local = tempfile::tempdir().unwrap();
    let copy = local.path().join("copy");
    files.curl(&["-o", copy.to_str().unwrap()], "down").expect("curl");
    assert!(fs::read(&copy).unwrap() == content);
    for (name, more) in [
        ("sized", &[][..]),
        ("chunked", &["-H", "Transfer-Encoding: chunked"]),
        ("unexpected", &["-H", "Expect:"]),
        ("expected", &["-H", "Expect: 100-continue", "--expect100-timeout", "20"]),
    ] {
        let arguments = [&["-T", copy.to_str().unwrap(), "-w", "%{http_code}"][..], more].concat();
        assert_eq!(files.curl(&arguments, name).expect("curl"), "201", "{name}");
        assert!(files.read(name) == content, "{name}");
    }
}

#[test]
fn an_upload_over_what_was_there_is_answered_without_a_body() {
    let files = Files::start();
    files.write("kept", b"old");
    let put = files.curl(&["-X", "PUT", "-d", "new", "-w", "%{http_code} %{num_connects}"], "kept");
    assert_eq!(put.expect("curl"), "204 1");
    assert_eq!(files.read("kept"), b"new");
    let delete = files.curl(&["-X", "DELETE", "-w", "%{http_code}"], "kept");
    assert_eq!(delete.expect("curl"), "204");
    assert!(!files.directory.path().join("kept").exists());
}

#[test]
fn http_1_0_closes_unless_it_asks_to_stay() {
    let files = Files::start();
    files.write("small", b"small");
    let url = files.url("small");
    let twice = ["--http1.0", "-w", "%{num_connects} ", "-o", "/dev/null", &url, "-o", "/dev/null"];
    assert_eq!(files.curl(&twice, "small").expect("curl"), "1 1");
    let stays = [&["-H", "Connection: keep-alive"][..], &twice].concat();
    assert_eq!(files.curl(&stays, "small").expect("curl"), "1 0");
}
