//! A backend that closes a connection after one second at rest, whatever is on its way to it.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use tieline_base::{Clock, Moment};

use super::message::{content_length, head_length};
use crate::backend::{listen, token};

/// How long a connection may rest.
const REST: Duration = Duration::from_secs(1);
/// How long an answer takes: requests that arrive together need a connection each.
const THINK: Duration = Duration::from_millis(15);
const LOOK_UP: Duration = Duration::from_millis(20);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub(crate) struct Fickle {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ending: AtomicBool,
    closed: AtomicUsize,
    crossed: AtomicUsize,
}

impl Fickle {
    pub(crate) fn start() -> io::Result<Fickle> {
        Fickle::with(THINK, REST)
    }

    /// One that takes so long for an answer, and lets connections rest.
    pub(crate) fn thinking(think: Duration) -> io::Result<Fickle> {
        Fickle::with(think, Duration::from_secs(3_600))
    }

    fn with(think: Duration, rest: Duration) -> io::Result<Fickle> {
        let listener = listen()?;
        let (address, shared) = (listener.local_addr()?, Arc::new(Shared::default()));
        let mut events = Events::watch(listener, (think, rest), Arc::clone(&shared))?;
        let thread = Some(std::thread::spawn(move || events.serve()));
        Ok(Fickle { address, shared, thread })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections it closed at rest, and those of them on which a request had already arrived.
    pub(crate) fn closed(&self) -> (usize, usize) {
        (self.shared.closed.load(Ordering::Relaxed), self.shared.crossed.load(Ordering::Relaxed))
    }
}

impl Drop for Fickle {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it sees the flag within one wait
        }
    }
}

/// The thread of a [`Fickle`]: level-triggered epoll; a file descriptor is its own token.
struct Events {
    epoll: OwnedFd,
    listener: TcpListener,
    visitors: HashMap<u64, Visitor>,
    /// Answers, then ends of rests, each in the order they are due.
    answers: VecDeque<Due>,
    rests: VecDeque<Due>,
    turns: u64,
    /// How long an answer takes, and how long a connection may rest.
    think: Duration,
    rest: Duration,
    shared: Arc<Shared>,
}

struct Visitor {
    connection: TcpStream,
    request: Vec<u8>,
    /// What was begun last; what is due for an earlier turn no longer is.
    turn: u64,
}

struct Due {
    at: Moment,
    token: u64,
    turn: u64,
}

impl Events {
    fn watch(
        listener: TcpListener,
        (think, rest): (Duration, Duration),
        shared: Arc<Shared>,
    ) -> io::Result<Events> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(token(&listener));
        epoll::add(&epoll, &listener, data, epoll::EventFlags::IN)?;
        let (answers, rests) = (VecDeque::new(), VecDeque::new());
        Ok(Events {
            epoll,
            listener,
            visitors: HashMap::new(),
            answers,
            rests,
            turns: 0,
            think,
            rest,
            shared,
        })
    }

    fn serve(&mut self) {
        let mut ready = Vec::with_capacity(512);
        while !self.shared.ending.load(Ordering::Relaxed) {
            ready.clear();
            let wait = self.wait();
            if epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), Some(&wait)).is_err() {
                continue; // interrupted
            }
            let now = Clock::now();
            // Before what came in is read: so requests cross a close on their way.
            while let Some(due) = self.rests.pop_front_if(|due| due.at <= now) {
                self.close(&due);
            }
            for event in &ready {
                let at = event.data.u64();
                if at == token(&self.listener) { self.accept() } else { self.read(at) }
            }
            while let Some(due) = self.answers.pop_front_if(|due| due.at <= now) {
                self.answer(&due);
            }
        }
    }

    fn wait(&self) -> Timespec {
        let next = [self.answers.front(), self.rests.front()].into_iter().flatten().map(|due| due.at).min();
        let now = Clock::now();
        let wait = next.map_or(LOOK_UP, |at| at.since(now).min(LOOK_UP));
        Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() }
    }

    fn accept(&mut self) {
        while let Ok((connection, _)) = self.listener.accept() {
            let at = token(&connection);
            let data = epoll::EventData::new_u64(at);
            if epoll::add(&self.epoll, &connection, data, epoll::EventFlags::IN).is_ok() {
                self.visitors.insert(at, Visitor { connection, request: Vec::new(), turn: 0 });
                self.rest(at);
            }
        }
    }

    fn read(&mut self, at: u64) {
        let Some(visitor) = self.visitors.get_mut(&at) else { return };
        let mut bytes = [0; 4096];
        match visitor.connection.read(&mut bytes) {
            Ok(length) if length > 0 => visitor.request.extend_from_slice(&bytes[..length]),
            _ => {
                self.visitors.remove(&at); // closing takes it out of epoll
                return;
            }
        }
        if is_whole(&visitor.request) {
            visitor.request.clear();
            self.turns += 1;
            visitor.turn = self.turns;
            self.answers.push_back(Due { at: Clock::now().after(self.think), token: at, turn: self.turns });
        }
    }

    fn answer(&mut self, due: &Due) {
        let visitor = self.visitors.get_mut(&due.token).filter(|visitor| visitor.turn == due.turn);
        if visitor.is_some_and(|visitor| visitor.connection.write_all(ANSWER).is_ok()) {
            self.rest(due.token);
        }
    }

    fn rest(&mut self, at: u64) {
        self.turns += 1;
        if let Some(visitor) = self.visitors.get_mut(&at) {
            visitor.turn = self.turns;
            self.rests.push_back(Due { at: Clock::now().after(self.rest), token: at, turn: self.turns });
        }
    }

    fn close(&mut self, due: &Due) {
        let Some(visitor) = self.visitors.get(&due.token).filter(|visitor| visitor.turn == due.turn) else {
            return;
        };
        let _ = visitor.connection.set_nonblocking(true); // it is closed next, whatever the look says
        let crossed = visitor.connection.peek(&mut [0]).is_ok_and(|length| length > 0);
        // Counted first: whoever sees the close may ask for the count.
        self.shared.closed.fetch_add(1, Ordering::Relaxed);
        self.shared.crossed.fetch_add(usize::from(crossed), Ordering::Relaxed);
        self.visitors.remove(&due.token);
    }
}

fn is_whole(request: &[u8]) -> bool {
    head_length(request).is_some_and(|head| {
        let body = content_length(&request[..head]).unwrap_or(0);
        request.len() >= head + body
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use std::time::Duration;

    use super::{ANSWER, Fickle, THINK};
    use tieline_base::Clock;

    #[test]
    fn it_answers_and_then_closes_after_its_rest() {
        let fickle = Fickle::with(THINK, Duration::from_secs(5)).unwrap();
        let mut client = TcpStream::connect(fickle.address()).unwrap();
        let mut answer = [0; ANSWER.len()];
        let mut answered = Clock::now();
        for request in ["GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"] {
            client.write_all(request.as_bytes()).unwrap();
            answered = Clock::now();
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, ANSWER);
        }
        assert_eq!(client.read(&mut answer).unwrap(), 0);
        assert!(Clock::now().since(answered) > Duration::from_secs(1));
        assert_eq!(fickle.closed(), (1, 0));
    }
}
