//! gRPC in another language, through Tieline: calls of all four kinds.

use tieline_testkit::finish;

use crate::python::{Server, program};
use crate::site::{Site, config_of};
use crate::support::await_live;

#[test]
fn calls_of_all_four_kinds_pass_and_end_as_they_should() {
    let server = Server::start("grpc_echo.py");
    let routes = format!(
        "[[listener.web.route]]\npath = \"/test.Echo\"\naccess = \"public\"\nupstream = \"calls\"\n\
         [upstream.calls]\nendpoints = [\"{}\"]\nhttp_version = \"2\"\n",
        server.address()
    );
    let site = Site::start(&config_of(&routes));
    let mut client = program("grpc_echo.py", "client");
    let said = finish(client.arg(site.address.port().to_string())).expect("the client");
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
