//! A server that ends and comes back at the same place: what went through it is over at both ends, and
//! what is new works as soon as it is back.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};

use tieline_testkit::{PATIENCE, TcpServer, wait_until};

use crate::site::{Site, TCP, server_draining};
use crate::support::{assert_closed, await_finished, connect, connect_relayed, echoes};

/// A service that echoes, and tells how the bytes of each client ended.
fn telling() -> (TcpServer, Receiver<Option<ErrorKind>>) {
    let (tell, told) = channel();
    let service = TcpServer::scripted(move |mut stream: &TcpStream| {
        let ended = std::io::copy(&mut stream.try_clone()?, &mut stream);
        let _ = tell.send(ended.err().map(|error| error.kind()));
        Ok(())
    });
    (service, told)
}

impl Site {
    /// The next one that starts binds where this one does.
    fn keep_its_place(&self) {
        let file = std::fs::read_to_string(self.server.config_file()).unwrap();
        let gate = format!("bind = \"{}\"", self.cable.leads_to());
        let web = format!("bind = \"{}\"", self.address());
        let (first, rest) = file.split_once("bind = \"127.0.0.1:0\"").unwrap();
        let text = format!("{first}{gate}{}", rest.replace("bind = \"127.0.0.1:0\"", &web));
        std::fs::write(self.server.config_file(), text).unwrap();
    }

    #[track_caller]
    fn assert_works(&mut self) {
        let works = || echoes(&mut connect(self.address()));
        assert!(wait_until(PATIENCE, works), "{}", self.agent.process().log());
    }
}

#[test]
fn a_server_that_is_stopped_ends_what_outlasts_its_drain_and_has_its_agent_back() {
    let (service, told) = telling();
    let web = TCP.replace("protocol = \"tcp\"", "protocol = \"tcp\"\ntimeouts = { drain = \"100ms\" }");
    let mut site = Site::of(server_draining("100ms", &web), service.address());
    let client = connect_relayed(site.address(), 1).remove(0);
    site.keep_its_place();
    site.server.stop();
    // By its own listener, or by the link: whichever drain is over first.
    assert_closed(&client);
    told.recv_timeout(PATIENCE).unwrap();
    site.server.restart();
    site.assert_works();
}

#[test]
fn a_server_that_is_killed_has_its_agent_back_and_the_service_sees_a_reset() {
    let (service, told) = telling();
    let mut site = Site::of(server_draining("1s", TCP), service.address());
    let _client = connect_relayed(site.address(), 1).remove(0);
    site.keep_its_place();
    site.server.process().kill();
    site.server.restart();
    // The agent wants to go on with a link that this process has never heard of.
    await_finished(&site.server, "listener=gate reason=refused:link", 1);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Some(ErrorKind::ConnectionReset)));
    site.assert_works();
}
