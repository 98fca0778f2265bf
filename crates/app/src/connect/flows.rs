//! A service at a local address of UDP: whoever sends to it has a flow of his own.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tieline_base::{Clock, Moment};
use tieline_transport::UdpListener;
use tieline_tunnel::{ConnectError, LinkFlow, UserLink};
use tokio::task::{AbortHandle, JoinSet};

use crate::logging::say;

/// The most senders at once: as many as a server takes of one link. One more takes the place of the one that
/// has been silent longest, which a resolver that asks from a new port each time never notices.
const SENDERS_MAX: usize = 128;

/// Datagrams taken at once.
const TURN: usize = 64;

/// How often the same trouble is told: datagrams come faster than anybody reads.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Serves `service` at `listener`, for ever.
///
/// # Errors
/// Nothing can be received any more.
pub(super) async fn serve(link: &UserLink, service: &str, why: &str, listener: UdpListener) -> io::Error {
    let (senders, answers, told) = Default::default();
    let listener = Rc::new(listener);
    let mut flows = Flows { link, service, why, listener, senders, answers, told, begun: 0 };
    poll_fn(|cx| flows.poll(cx)).await
}

struct Flows<'c> {
    link: &'c UserLink,
    service: &'c str,
    why: &'c str,
    listener: Rc<UdpListener>,
    senders: HashMap<SocketAddr, Sender>,
    /// What brings back what the service says to each.
    answers: JoinSet<(SocketAddr, u64, io::Result<()>)>,
    /// What was told last.
    told: Option<(String, Moment)>,
    begun: u64,
}

struct Sender {
    flow: Rc<LinkFlow>,
    /// Which it is of all that began, for one address may have several in turn.
    number: u64,
    heard: Moment,
    answers: AbortHandle,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

impl Flows<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let listener = self.listener.clone();
        let mut left = TURN;
        while left > 0 {
            match listener.poll_receive(cx, |sender, datagram| self.came(sender, datagram)) {
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Ready(Ok(())) => left -= 1,
                Poll::Pending => break,
            }
        }
        if left == 0 {
            cx.waker().wake_by_ref();
        }
        // Behind those that begin: of an empty set nobody is woken.
        while let Poll::Ready(Some(ended)) = self.answers.poll_join_next(cx) {
            if let Ok((sender, number, end)) = ended {
                self.ended(sender, number, end);
            }
        }
        Poll::Pending
    }

    fn came(&mut self, from: SocketAddr, datagram: &[u8]) {
        if !self.senders.contains_key(&from) {
            match self.link.flow(self.service, self.why) {
                Ok(Some(flow)) => self.begin(from, flow),
                // While the link is down nothing begins; what is sent is lost, as it would be on any path.
                Ok(None) => return,
                Err(error) => return self.tell(&error),
            }
        }
        if let Some(sender) = self.senders.get_mut(&from) {
            sender.heard = Clock::now();
            sender.flow.send(datagram);
        }
    }

    #[allow(clippy::disallowed_methods)] // flows live and end with the command
    fn begin(&mut self, from: SocketAddr, flow: LinkFlow) {
        if self.senders.len() >= SENDERS_MAX {
            let oldest = self.senders.iter().min_by_key(|(_, sender)| sender.heard).map(|(from, _)| *from);
            oldest.and_then(|oldest| self.senders.remove(&oldest));
        }
        self.begun += 1;
        let (flow, number, listener) = (Rc::new(flow), self.begun, self.listener.clone());
        let answering = answer(flow.clone(), listener, from);
        let answers = self.answers.spawn_local(async move { (from, number, answering.await) });
        self.senders.insert(from, Sender { flow, number, heard: Clock::now(), answers });
    }

    fn ended(&mut self, from: SocketAddr, number: u64, end: io::Result<()>) {
        if self.senders.get(&from).is_some_and(|sender| sender.number == number) {
            self.senders.remove(&from);
        }
        match end.map_err(|error| self.link.error(&error)) {
            // Nothing says when conversations of UDP end but silence.
            Ok(()) | Err(ConnectError::Idle(_)) => {}
            Err(error) => self.tell(&error),
        }
    }

    fn tell(&mut self, error: &ConnectError) {
        let (text, now) = (error.to_string(), Clock::now());
        let again = |(told, at): &(String, Moment)| *told == text && now.since(*at) < TOLD_EVERY;
        if !self.told.as_ref().is_some_and(again) {
            say(&format!("tieline: {}: {text}", self.service));
            self.told = Some((text, now));
        }
    }
}

/// Passes on what the service says to `to`.
async fn answer(flow: Rc<LinkFlow>, listener: Rc<UdpListener>, to: SocketAddr) -> io::Result<()> {
    while let Some(datagram) = poll_fn(|cx| flow.poll_receive(cx)).await? {
        listener.send(to, &datagram);
    }
    Ok(())
}
