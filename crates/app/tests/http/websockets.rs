//! A real WebSocket client and a real server of another language, with Tieline between them.

use tieline_testkit::finish;

use crate::python::{Server, program};
use crate::site::{Site, config_of};
use crate::support::await_live;

#[test]
fn messages_of_all_kinds_pass_and_the_close_says_why() {
    let server = Server::start("websocket_echo.py");
    let routes = format!(
        "[[listener.web.route]]\npath = \"/chat\"\naccess = \"public\"\nupstream = \"chat\"\n\
         [upstream.chat]\nendpoints = [\"{}\"]\n",
        server.address()
    );
    let site = Site::start(&config_of(&routes));
    let mut client = program("websocket_echo.py", "client");
    let said = finish(client.arg(format!("ws://{}/chat", site.address))).expect("the client");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "agreed chat permessage-deflate",
            "text Grüße",
            "binary True",
            "pieces in three pieces",
            "pong",
            "closed 4001 as asked",
        ],
    );
    assert_eq!(site.log_line("/chat")["status"], 101);
    await_live(&site.tieline, "", 0);
}
