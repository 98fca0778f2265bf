//! A server that answers at once: what a pooler could do if the database took no time.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::{Timespec, epoll};
use tieline_testkit::pg::frontend;

use crate::backend::{listen, token};

/// Speaks as much of the protocol as a pooler needs: it lets everybody in and answers every query with a row.
pub(crate) struct AtOnce {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl AtOnce {
    pub(crate) fn start() -> io::Result<AtOnce> {
        let listener = listen()?;
        let address = listener.local_addr()?;
        let ending = Arc::new(AtomicBool::new(false));
        let mut events = Events::watch(listener, Arc::clone(&ending))?;
        let thread = Some(std::thread::spawn(move || events.serve()));
        Ok(AtOnce { address, ending, thread })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AtOnce {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it sees the flag within one wait
        }
    }
}

/// A connection, and what of a message has come.
struct Member {
    stream: TcpStream,
    input: Vec<u8>,
    is_in: bool,
}

struct Events {
    epoll: OwnedFd,
    listener: TcpListener,
    members: HashMap<u64, Member>,
    ending: Arc<AtomicBool>,
}

impl Events {
    fn watch(listener: TcpListener, ending: Arc<AtomicBool>) -> io::Result<Events> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(token(&listener));
        epoll::add(&epoll, &listener, data, epoll::EventFlags::IN)?;
        Ok(Events { epoll, listener, members: HashMap::new(), ending })
    }

    fn serve(&mut self) {
        let mut ready = Vec::with_capacity(256);
        let look_up = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        while !self.ending.load(Ordering::Relaxed) {
            ready.clear();
            let waited = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), Some(&look_up));
            if waited.is_err() {
                continue; // interrupted
            }
            for event in &ready {
                let id = event.data.u64();
                if id == token(&self.listener) {
                    self.accept();
                } else if self.members.get_mut(&id).is_none_or(|member| member.answer().is_err()) {
                    self.members.remove(&id); // closing takes it out of epoll
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let id = token(&stream);
            let _ = stream.set_nodelay(true); // a socket that was just accepted is one of TCP
            if epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(id), epoll::EventFlags::IN).is_ok()
            {
                self.members.insert(id, Member { stream, input: Vec::new(), is_in: false });
            }
        }
    }
}

impl Member {
    /// Reads once, as epoll promised that there is something, and answers all that is whole in one write.
    fn answer(&mut self) -> io::Result<()> {
        let mut piece = [0; 16 << 10];
        let length = self.stream.read(&mut piece)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.input.extend_from_slice(&piece[..length]);
        let mut output = Vec::new();
        let mut at = 0;
        while let Some(length) = whole(&self.input[at..], self.is_in) {
            let message = &self.input[at..at + length];
            if self.is_in {
                reply(message[0], &mut output)?
            } else {
                self.is_in = greet(message, &mut output)
            }
            at += length;
        }
        self.input.drain(..at);
        self.stream.write_all(&output)
    }
}

/// The length of the first message of `input`, once it is whole; before a login it has no type.
fn whole(input: &[u8], is_in: bool) -> Option<usize> {
    let kind = usize::from(is_in);
    let length = input.get(kind..kind + 4)?.try_into().ok()?;
    let length = kind + usize::try_from(u32::from_be_bytes(length)).ok()?.max(4);
    (input.len() >= length).then_some(length)
}

/// Answers a startup packet; whether its sender is in now.
fn greet(packet: &[u8], output: &mut Vec<u8>) -> bool {
    if packet[4..] == frontend::SSL_REQUEST.to_be_bytes()
        || packet[4..] == frontend::GSSENC_REQUEST.to_be_bytes()
    {
        output.push(b'N');
        return false;
    }
    output.extend(frontend::message(b'R', &[0; 4]));
    for status in ["server_version\x0015.0\0", "client_encoding\0UTF8\0", "standard_conforming_strings\0on\0"]
    {
        output.extend(frontend::message(b'S', status.as_bytes()));
    }
    output.extend(frontend::message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]));
    output.extend(frontend::message(b'Z', b"I"));
    true
}

fn reply(kind: u8, output: &mut Vec<u8>) -> io::Result<()> {
    output.extend_from_slice(match kind {
        b'Q' => ANSWER,
        b'P' => b"1\0\0\0\x04",
        b'B' => b"2\0\0\0\x04",
        b'C' => b"3\0\0\0\x04",
        b'D' => b"n\0\0\0\x04",
        b'E' => b"C\0\0\0\x0dSELECT 1\0",
        b'S' => b"Z\0\0\0\x05I",
        b'H' => b"",
        _ => return Err(io::ErrorKind::InvalidData.into()),
    });
    Ok(())
}

/// One row of one column, as `select 7` would bring.
pub(crate) const ANSWER: &[u8] =
    b"T\0\0\0\x21\0\x01?column?\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0\
    D\0\0\0\x0b\0\x01\0\0\0\x017C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";

#[cfg(test)]
mod tests {
    use super::AtOnce;
    use tieline_testkit::pg::Conversation;

    #[test]
    fn its_answers_are_those_of_a_server() {
        let backend = AtOnce::start().unwrap();
        let mut client = Conversation::log_in(backend.address(), "a", "b");
        let said: Vec<String> = client.query("select 7").iter().map(ToString::to_string).collect();
        let row = "RowDescription ?column?:23(table 0.0 size 4 modifier -1 format 0)";
        assert_eq!(said, [row, "DataRow \"7\"", "CommandComplete SELECT 1", "ReadyForQuery I"]);
        assert_eq!(client.value("select 8"), "7");
    }
}
