//! Clients by hand: many that stay, and many that ask again and again.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;

use rustix::event::{Timespec, epoll};
use tieline_testkit::pg::frontend;

use super::backend::ANSWER;
use crate::crowd::connect;
use crate::http::{Secured, Trust};

/// No answer takes longer unless the pooler is stuck.
const STUCK: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// The end of every answer outside of a transaction.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// A client that has logged in.
pub(crate) trait Client: Read + Write {}

impl Client for TcpStream {}
impl Client for Secured {}

/// Logs in as `postgres` over a plain connection, without a password.
pub(crate) fn log_in(pooler: SocketAddr, source: usize) -> io::Result<TcpStream> {
    let mut client = connect(pooler, source)?;
    client.set_nodelay(true)?;
    greet(&mut client)?;
    Ok(client)
}

/// [`log_in`] over TLS.
pub(crate) fn log_in_over_tls(pooler: SocketAddr, source: usize, trust: &Trust) -> io::Result<Secured> {
    let mut socket = connect(pooler, source)?;
    socket.write_all(&frontend::request(frontend::SSL_REQUEST))?;
    let mut answer = [0];
    socket.read_exact(&mut answer)?;
    if &answer != b"S" {
        return Err(io::Error::other("no TLS here"));
    }
    let mut client = trust.over(socket)?;
    greet(&mut client)?;
    Ok(client)
}

fn greet(client: &mut impl Client) -> io::Result<()> {
    let parameters = [("user", "postgres"), ("database", "postgres")];
    client.write_all(&frontend::startup(frontend::V3_0, &parameters))?;
    until_ready(client).map(drop)
}

/// Asks once and waits for the whole answer.
pub(crate) fn ask_once(client: &mut impl Client) -> io::Result<()> {
    client.write_all(&frontend::query("select 7"))?;
    let answer = until_ready(client)?;
    if answer == ANSWER { Ok(()) } else { Err(wrong(&answer)) }
}

fn until_ready(client: &mut impl Client) -> io::Result<Vec<u8>> {
    let mut heard = Vec::new();
    let mut piece = [0; 4096];
    while !heard.ends_with(READY) {
        let length = client.read(&mut piece)?;
        if length == 0 {
            return Err(wrong(&heard));
        }
        heard.extend_from_slice(&piece[..length]);
    }
    Ok(heard)
}

fn wrong(heard: &[u8]) -> io::Error {
    io::Error::other(format!("a wrong answer: {}", heard[..heard.len().min(300)].escape_ascii()))
}

/// Asks `count` times, over `at_once` connections with one query in flight on each, with one thread.
pub(crate) fn ask(pooler: SocketAddr, count: usize, at_once: usize) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut clients: Vec<(TcpStream, usize)> = Vec::new();
    let query = frontend::query("select 7");
    for index in 0..at_once.min(count) {
        let mut client = log_in(pooler, index)?;
        epoll::add(&epoll, client.as_fd(), epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
        client.write_all(&query)?;
        clients.push((client, 0));
    }
    let (mut asked, mut answered) = (clients.len(), 0);
    let mut ready = Vec::with_capacity(at_once.max(1));
    while answered < count {
        ready.clear();
        if epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut ready), Some(&STUCK))? == 0 {
            return Err(io::Error::other(format!("no answer to {} queries", asked - answered)));
        }
        for event in &ready {
            let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            let Some((client, came)) = clients.get_mut(index) else { continue };
            let mut place = [0; 1024];
            let length = client.read(&mut place)?; // epoll promised that there is something
            if length == 0 || ANSWER.get(*came..*came + length) != Some(&place[..length]) {
                return Err(wrong(&place[..length]));
            }
            *came += length;
            if *came == ANSWER.len() {
                *came = 0;
                answered += 1;
                if asked < count {
                    asked += 1;
                    client.write_all(&query)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{ask, ask_once, log_in};
    use crate::postgres::backend::AtOnce;

    #[test]
    fn every_query_is_answered() {
        let backend = AtOnce::start().unwrap();
        ask(backend.address(), 100, 7).unwrap();
        ask_once(&mut log_in(backend.address(), 3).unwrap()).unwrap();
    }

    #[test]
    fn a_real_server_answers_the_same() {
        let access = ["host all all 127.0.0.0/8 trust"]; // clients come from many addresses
        let postgres = tieline_testkit::Cluster { access: &access, ..Default::default() }.start();
        ask(postgres.address(), 50, 4).unwrap();
    }
}
