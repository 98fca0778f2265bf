//! gRPC in another language, through Tieline: calls of all four kinds.

use std::path::Path;
use std::process::Command;

use tieline_testkit::{PATIENCE, finish, free_port, loopback, wait_until};

use crate::site::{Site, config_of};
use crate::support::await_live;

/// The distribution's own, which has its packages.
const PYTHON: &str = "/usr/bin/python3";

fn script() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http/grpc_echo.py");
    path.to_str().unwrap().to_owned()
}

/// The server's process, ended with the test.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn calls_of_all_four_kinds_pass_and_end_as_they_should() {
    let address = loopback(free_port());
    let _server = Server(
        Command::new(PYTHON)
            .args([&script(), "server", &address.port().to_string()])
            .spawn()
            .expect("python3"),
    );
    assert!(wait_until(PATIENCE, || std::net::TcpStream::connect(address).is_ok()), "the server listens");
    let routes = format!(
        "[[listener.web.route]]\npath = \"/test.Echo\"\naccess = \"public\"\nupstream = \"calls\"\n\
         [upstream.calls]\nendpoints = [\"{address}\"]\nhttp_version = \"2\"\n"
    );
    let site = Site::start(&config_of(&routes));
    let mut client = Command::new(PYTHON);
    let said =
        finish(client.args([&script(), "client", &site.address.port().to_string()])).expect("the client");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "unary 100001 100000",
            "server 499500",
            "client a,b,c",
            "both cba fed ihg",
            "refused FAILED_PRECONDITION not now: ä",
            "nowhere UNIMPLEMENTED Not Found: no route leads there",
        ],
    );
    for method in ["Unary", "ServerStream", "ClientStream", "BothStreams"] {
        let line = site.log_line(&format!("/test.Echo/{method}"));
        assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"answered".into()), "{line}");
    }
    await_live(&site.tieline, "", 0);
}
