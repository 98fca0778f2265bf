//! What a dialer tries at once: one connection for each way, that carries nothing yet.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tieline_transport::Io;
use tieline_wire::tunnel::{Refusal, Way};

use crate::carrier::Carrier;
use crate::greeting::{Caller, GreetingError, ask};
use crate::live::LiveLink;
use crate::ways::Reach;

/// The connections that are under way, each way at most once, and why others came to nothing.
#[derive(Default)]
pub(crate) struct Attempts {
    under_way: Vec<(Way, Attempt)>,
    failures: Vec<(Way, String)>,
}

type Task<T> = Pin<Box<dyn Future<Output = T>>>;

enum Attempt {
    Dials(Task<Result<Io, String>>),
    /// Who is there was proved, and whether we are believed is not known.
    Through(Io),
    Asks(Task<Result<Carrier, GreetingError>>),
}

/// What came of one of them.
pub(crate) enum Came {
    /// It may ask.
    Through(Way),
    /// It carries the link.
    Carries(Way, Box<Carrier>),
    /// The server says no.
    Refused(Refusal, Duration),
    /// Nothing.
    Failed(Way),
}

impl Attempts {
    /// Begins to go a way.
    pub(crate) fn dial(&mut self, way: Way, reach: Reach) {
        self.close(way);
        self.failures.retain(|(failed, _)| *failed != way);
        self.under_way.push((way, Attempt::Dials(Box::pin(reach.go(way)))));
    }

    /// Asks for `link` to go on over what has come through by `way`, or for a new one.
    pub(crate) fn ask(&mut self, way: Way, link: Option<Arc<LiveLink>>, caller: Caller) {
        let at = self.under_way.iter().position(|(other, _)| *other == way);
        match at.map(|at| self.under_way.swap_remove(at).1) {
            Some(Attempt::Through(io)) => {
                self.under_way.push((way, Attempt::Asks(Box::pin(ask(io, link, caller)))));
            }
            Some(other) => self.under_way.push((way, other)),
            None => {}
        }
    }

    /// Gives a way up.
    pub(crate) fn close(&mut self, way: Way) {
        let before = self.under_way.len();
        self.under_way.retain(|(other, _)| *other != way);
        if self.under_way.len() < before {
            self.failures.push((way, "no answer in time".into()));
        }
    }

    /// Gives all of them up; nobody need know why.
    pub(crate) fn close_all(&mut self) {
        *self = Self::default();
    }

    /// The next of them of which something came.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Option<Came> {
        for at in 0..self.under_way.len() {
            let (way, attempt) = &mut self.under_way[at];
            let way = *way;
            match attempt {
                Attempt::Dials(task) => match task.as_mut().poll(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(io)) => {
                        *attempt = Attempt::Through(io);
                        return Some(Came::Through(way));
                    }
                    Poll::Ready(Err(error)) => return Some(self.failed(at, error)),
                },
                Attempt::Asks(task) => match task.as_mut().poll(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(carrier)) => {
                        self.under_way.swap_remove(at);
                        return Some(Came::Carries(way, Box::new(carrier)));
                    }
                    Poll::Ready(Err(GreetingError::Refused(refusal, retry_after))) => {
                        self.under_way.swap_remove(at);
                        return Some(Came::Refused(refusal, retry_after));
                    }
                    Poll::Ready(Err(error)) => return Some(self.failed(at, error.to_string())),
                },
                Attempt::Through(_) => {}
            }
        }
        None
    }

    /// Why all the ways that were tried since it was last asked came to nothing, if any was and none is
    /// under way.
    pub(crate) fn take_failures(&mut self) -> Option<String> {
        if self.failures.is_empty() || !self.under_way.is_empty() {
            return None;
        }
        let told = |(way, why): &(Way, String)| format!("{}: {why}", called(*way));
        let all: Vec<String> = self.failures.iter().map(told).collect();
        self.failures.clear();
        Some(all.join("; "))
    }

    fn failed(&mut self, at: usize, error: String) -> Came {
        let (way, _) = self.under_way.swap_remove(at);
        self.failures.push((way, error));
        Came::Failed(way)
    }
}

fn called(way: Way) -> &'static str {
    match way {
        Way::Quic6 => "QUIC over IPv6",
        Way::Quic4 => "QUIC over IPv4",
        Way::Tls => "TLS",
        Way::WebSocket => "WebSocket",
    }
}
