//! Clients that ask for one page again and again: one thread for all of them, every byte of every answer
//! checked.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;

use rustix::event::{Timespec, epoll};

use super::message::{content_length, head_length, status};
use super::origin::Page;

/// One read.
const PIECE: usize = 256 << 10;
/// No answer takes longer unless the proxy is stuck.
const STUCK: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// What carries a conversation.
pub(crate) trait Carrier: Read + Write + AsFd {
    /// Whether there is more to read that epoll does not know of.
    fn holds_unread(&mut self) -> bool {
        false
    }
}

impl Carrier for TcpStream {}

/// Asks for `page` `count` times, over `at_once` connections with one request in flight on each.
pub(crate) fn ask(proxy: SocketAddr, page: &Page, count: usize, at_once: usize) -> io::Result<()> {
    ask_over(|| TcpStream::connect(proxy), page, count, at_once)
}

/// [`ask`] over connections that `connect` makes.
pub(crate) fn ask_over<C: Carrier>(
    connect: impl Fn() -> io::Result<C>,
    page: &Page,
    count: usize,
    at_once: usize,
) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut clients: Vec<Client<C>> =
        (0..at_once.min(count)).map(|_| connect().map(Client::from)).collect::<io::Result<_>>()?;
    for (index, client) in clients.iter_mut().enumerate() {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&epoll, &client.connection, data, epoll::EventFlags::IN)?;
        client.connection.write_all(&page.request)?;
    }
    let (mut asked, mut answered) = (clients.len(), 0);
    let (mut ready, mut place) = (Vec::with_capacity(at_once.max(1)), vec![0; PIECE]);
    while answered < count {
        ready.clear();
        if epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut ready), Some(&STUCK))? == 0 {
            return Err(io::Error::other(format!("no answer to {} requests", asked - answered)));
        }
        for event in &ready {
            let Some(client) = usize::try_from(event.data.u64()).ok().and_then(|at| clients.get_mut(at))
            else {
                continue;
            };
            // Epoll promised that there is something, so one read does not block for long.
            if client.read_ready(page, &mut place)? {
                answered += 1;
                if asked < count {
                    asked += 1;
                    client.connection.write_all(&page.request)?;
                }
            }
        }
    }
    Ok(())
}

/// A client's connection and how much of an answer it has.
pub(crate) struct Client<C = TcpStream> {
    connection: C,
    /// A head that is not whole yet.
    head: Vec<u8>,
    /// Bytes of the body that came, once the head is whole.
    body: Option<usize>,
}

impl<C: Carrier> Client<C> {
    /// What carries it.
    pub(crate) fn carrier(&self) -> &C {
        &self.connection
    }

    /// Asks, and leaves the answer to [`Client::read_ready`].
    pub(crate) fn send(&mut self, page: &Page) -> io::Result<()> {
        self.connection.write_all(&page.request)
    }

    /// Asks once and waits for the whole answer.
    pub(crate) fn ask_once(&mut self, page: &Page) -> io::Result<()> {
        self.send(page)?;
        let mut place = [0; 4096];
        while !self.read_once(page, &mut place)? {}
        Ok(())
    }

    /// Reads what is there; whether the answer is whole.
    pub(crate) fn read_ready(&mut self, page: &Page, place: &mut [u8]) -> io::Result<bool> {
        loop {
            if self.read_once(page, place)? {
                return Ok(true);
            }
            if !self.connection.holds_unread() {
                return Ok(false);
            }
        }
    }

    /// Reads once; whether the answer is whole.
    fn read_once(&mut self, page: &Page, place: &mut [u8]) -> io::Result<bool> {
        let length = self.connection.read(place)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.take(page, &place[..length])
    }

    /// Takes in what came; whether the answer is whole.
    fn take(&mut self, page: &Page, bytes: &[u8]) -> io::Result<bool> {
        let Some(came) = self.body else {
            self.head.extend_from_slice(bytes);
            let Some(length) = head_length(&self.head) else { return Ok(false) };
            let mut head = std::mem::take(&mut self.head);
            check_head(&head[..length], page)?;
            self.body = Some(0);
            let whole = self.take(page, &head[length..]);
            head.clear();
            self.head = head; // its room, for the next
            return whole;
        };
        let expected = page.body.get(came..came + bytes.len());
        if expected != Some(bytes) {
            return Err(io::Error::other(format!("a wrong body behind its byte {came}")));
        }
        let came = came + bytes.len();
        let whole = came == page.body.len();
        self.body = (!whole).then_some(came);
        Ok(whole)
    }
}

impl<C: Carrier> From<C> for Client<C> {
    fn from(connection: C) -> Client<C> {
        Client { connection, head: Vec::new(), body: None }
    }
}

fn check_head(head: &[u8], page: &Page) -> io::Result<()> {
    if status(head) == Some(200) && content_length(head) == Some(page.body.len()) {
        return Ok(());
    }
    Err(io::Error::other(format!("a wrong answer: {}", String::from_utf8_lossy(head).trim())))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::{Client, ask};
    use crate::http::origin::{Origin, Page};

    fn client() -> Client {
        let listener = TcpListener::bind(tieline_testkit::loopback(0)).unwrap();
        Client::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap())
    }

    #[test]
    fn an_answer_is_whole_however_it_was_cut() {
        let page = Page::of(40);
        let answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n", page.body.as_slice()].concat();
        for cut in 1..answer.len() {
            let mut client = client();
            for _ in 0..2 {
                assert!(!client.take(&page, &answer[..cut]).unwrap(), "cut at {cut}");
                assert!(client.take(&page, &answer[cut..]).unwrap(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn wrong_answers_are_told() {
        let page = Page::of(4);
        let told = |answer: &[u8]| client().take(&page, answer).unwrap_err().to_string();
        assert!(told(b"HTTP/1.1 502 No\r\nContent-Length: 4\r\n\r\nabcd").contains("502"));
        assert!(told(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde").contains("Length: 5"));
        assert!(told(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabdc").contains("wrong body"));
        assert!(told(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcde").contains("wrong body"));
    }

    #[test]
    fn the_origin_answers_every_request() {
        let origin = Origin::start(&[7, 300_000]).unwrap();
        ask(origin.address(), &Page::of(7), 50, 4).unwrap();
        ask(origin.address(), &Page::of(300_000), 3, 4).unwrap();
        assert!(ask(origin.address(), &Page::of(8), 1, 1).is_err());
    }
}
