//! Requests at a pace of their own, whatever became of the last ones: who waits is felt by all that are due.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use tieline_base::{Clock, Moment};

use super::load::Client;
use super::origin::Page;

/// How requests come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How many a second, evenly spread.
    pub(crate) per_second: f64,
    /// Connections that are there from the start; more are made as they are needed.
    pub(crate) connections: usize,
    /// The most connections; who is due beyond it waits, and the wait counts.
    pub(crate) connections_max: usize,
}

/// What came of a stretch of paced requests.
#[derive(Debug, Default)]
pub(crate) struct Paced {
    /// From when each was due to the end of its answer, in milliseconds.
    pub(crate) took_ms: Vec<f64>,
    /// How many were not answered as they should have been.
    pub(crate) failed: usize,
}

/// Looks whether it is over at least so often.
const LOOK_UP: Duration = Duration::from_millis(20);

impl Pace {
    /// Asks `proxy` for `page` at this pace until `done`, which is told the time since the start, says so.
    pub(crate) fn ask(
        self,
        proxy: SocketAddr,
        page: &Page,
        done: impl Fn(Duration) -> bool,
    ) -> io::Result<Paced> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut run = Run { epoll, clients: Vec::new(), idle: Vec::new(), due: VecDeque::new() };
        (0..self.connections).try_for_each(|_| run.connect(proxy))?;
        let (began, mut sent, mut paced) = (Clock::now(), 0_u64, Paced::default());
        let (mut ready, mut place) = (Vec::with_capacity(256), vec![0; 64 << 10]);
        loop {
            let now = Clock::now();
            if done(now.since(began)) {
                return Ok(paced);
            }
            let at = |number: u64| began.after(Duration::from_secs_f64(number as f64 / self.per_second));
            while at(sent) <= now {
                run.due.push_back(at(sent));
                sent += 1;
            }
            run.send_due(proxy, page, self.connections_max, &mut paced)?;
            let wait = at(sent).since(Clock::now()).min(LOOK_UP);
            let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
            ready.clear();
            if epoll::wait(&run.epoll, rustix::buffer::spare_capacity(&mut ready), Some(&wait)).is_err() {
                continue; // interrupted
            }
            for event in &ready {
                run.take(usize::try_from(event.data.u64()).unwrap_or(0), page, &mut place, &mut paced);
            }
        }
    }
}

struct Run {
    epoll: std::os::fd::OwnedFd,
    /// Each with the moment its request was due; none where it broke.
    clients: Vec<Option<(Client, Option<Moment>)>>,
    idle: Vec<usize>,
    due: VecDeque<Moment>,
}

impl Run {
    fn connect(&mut self, proxy: SocketAddr) -> io::Result<()> {
        let stream = TcpStream::connect(proxy)?;
        stream.set_nodelay(true)?;
        let client = Client::from(stream);
        let data = epoll::EventData::new_u64(self.clients.len() as u64);
        epoll::add(&self.epoll, client.carrier(), data, epoll::EventFlags::IN)?;
        self.idle.push(self.clients.len());
        self.clients.push(Some((client, None)));
        Ok(())
    }

    fn send_due(
        &mut self,
        proxy: SocketAddr,
        page: &Page,
        connections_max: usize,
        paced: &mut Paced,
    ) -> io::Result<()> {
        while let Some(&due) = self.due.front() {
            if self.idle.is_empty() && self.clients.iter().flatten().count() < connections_max {
                self.connect(proxy)?;
            }
            let Some(at) = self.idle.pop() else { return Ok(()) };
            let Some((client, asked)) = &mut self.clients[at] else { continue };
            self.due.pop_front();
            *asked = Some(due);
            if client.send(page).is_err() {
                paced.failed += 1;
                self.clients[at] = None;
            }
        }
        Ok(())
    }

    fn take(&mut self, at: usize, page: &Page, place: &mut [u8], paced: &mut Paced) {
        let Some(Some((client, asked))) = self.clients.get_mut(at) else { return };
        match client.read_ready(page, place) {
            Ok(false) => {}
            Ok(true) => {
                if let Some(due) = asked.take() {
                    paced.took_ms.push(Clock::now().since(due).as_secs_f64() * 1e3);
                    self.idle.push(at);
                }
            }
            Err(_) => {
                paced.failed += usize::from(asked.is_some());
                self.idle.retain(|&idle| idle != at);
                self.clients[at] = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;
    use crate::http::origin::{Origin, Page};
    use std::time::Duration;

    #[test]
    fn requests_come_at_their_pace() {
        let origin = Origin::start(&[16]).unwrap();
        let pace = Pace { per_second: 200.0, connections: 2, connections_max: 8 };
        let time = Duration::from_secs(3);
        let paced = pace.ask(origin.address(), &Page::of(16), |since| since >= time).unwrap();
        assert!((60..=602).contains(&paced.took_ms.len()) && paced.failed == 0, "{}", paced.took_ms.len());
        let wrong = pace.ask(origin.address(), &Page::of(17), |since| since >= time).unwrap();
        assert!(wrong.took_ms.is_empty() && wrong.failed > 10, "{wrong:?}");
    }
}
