//! Answers and questions that come in pieces.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tieline_testkit::pg::{Conversation, frontend};
use tieline_testkit::{TcpServer, Tieline};

use crate::house::Server;

/// Beyond its log-in, what `server` says arrives byte by byte.
fn trickling(server: SocketAddr) -> TcpServer {
    TcpServer::scripted(move |client| {
        let server = TcpStream::connect(server)?;
        let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
        std::thread::spawn(move || io::copy(&mut from_client, &mut to_server));
        client.set_nodelay(true)?;
        let (mut heard, mut piece) = (0, [0; 4096]);
        loop {
            let length = (&server).read(&mut piece)?;
            if length == 0 {
                return Ok(());
            }
            heard += length;
            // The log-in has passed by then; it is of no interest here, and long.
            let size = if heard > 400 { 1 } else { length };
            for part in piece[..length].chunks(size) {
                (&*client).write_all(part)?;
                std::thread::sleep(Duration::from_micros(500)); // the pace of the service, not a wait
            }
        }
    })
}

/// What is answered without the server has its turn behind what the server answers, however that arrives.
#[test]
fn answers_of_our_own_wait_for_the_end_of_those_before_them() {
    let server = Server::start();
    let slow = trickling(server.address());
    let tieline = Tieline::start(&format!(
        "[listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
         [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n\
         [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{}\"]\n\
         pool = {{ mode = \"transaction\", size = 1 }}\n",
        slow.address()
    ));
    let mut client = Conversation::log_in(tieline.listener_address("db"), "postgres", "postgres");
    let sql = "select 1 as a_name_that_takes_its_time, 2 as another_one";
    client.send(&[frontend::parse("s", sql, &[]), frontend::sync()].concat()).unwrap();
    client.until(b'Z').unwrap();
    // A Close is never passed on, so that its answer is ours.
    let batch = [frontend::describe(b'S', "s"), frontend::close(b'S', "s"), frontend::sync()].concat();
    client.send(&batch).unwrap();
    let kinds: Vec<u8> = client.until(b'Z').unwrap().iter().map(|message| message.kind).collect();
    assert_eq!(kinds, b"tT3Z");
    assert_eq!(client.value("select 7"), "7");
    // What is asked meanwhile does not tear them either.
    client
        .send(&[frontend::parse("s", sql, &[]), frontend::describe(b'S', "s"), frontend::flush()].concat())
        .unwrap();
    let first = client.message().unwrap().unwrap();
    assert_eq!(first.kind, b'1');
    client.send(&[frontend::close(b'S', "s"), frontend::sync()].concat()).unwrap();
    let kinds: Vec<u8> = client.until(b'Z').unwrap().iter().map(|message| message.kind).collect();
    assert_eq!(kinds, b"tT3Z");
}
