//! One flow of a link: datagrams, of which some may be lost, between two sockets of UDP.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tieline_base::Clock;
use tieline_transport::UdpPeer;
use tieline_wire::tunnel::{Code, Patience, StreamId};

use crate::live::{Ended, LiveLink};
use crate::stream::{LinkStream, broken, code_in, refused};

/// How long a flow lives without a datagram, and how long it waits for its link: nothing says when
/// conversations of UDP end.
const QUIET_MAX: Duration = Duration::from_secs(30);

/// Datagrams moved each way before others have their turn.
const TURN: usize = 64;

/// What is sent goes through the link, or is lost. Dropped, the flow ends in order.
#[derive(Debug)]
pub struct LinkFlow(LinkStream);

impl LinkFlow {
    /// The flow that `stream` was asked for as.
    pub(crate) fn new(stream: LinkStream) -> LinkFlow {
        let (link, id) = stream.handle();
        let patience = Patience { detached: QUIET_MAX, idle: Some(QUIET_MAX) };
        link.act(|core| core.link.set_patience(id, patience));
        LinkFlow(stream)
    }

    /// Where it is, for whoever must break it off from elsewhere.
    pub(crate) fn handle(&self) -> (Arc<LiveLink>, StreamId) {
        self.0.handle()
    }

    /// Sends a datagram, or loses it.
    pub fn send(&self, datagram: &[u8]) {
        let (link, id) = self.handle();
        link.act(|core| core.link.send_datagram(id, datagram, Clock::now()));
    }

    /// The next datagram; `None` when the other side has ended the flow.
    ///
    /// # Errors
    /// What broke it off.
    pub fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Box<[u8]>>>> {
        let (link, id) = self.handle();
        link.act(|core| {
            if let Some(datagram) = core.link.take_datagram(id) {
                return Poll::Ready(Ok(Some(datagram)));
            }
            match core.ended(id) {
                Some(Ended::Broken(code, None)) => Poll::Ready(Err(broken(code))),
                Some(Ended::Broken(code, text)) => Poll::Ready(Err(refused(code, text.as_deref()))),
                Some(Ended::InOrder) => Poll::Ready(Ok(None)),
                None if core.link.at_end(id) => Poll::Ready(Ok(None)),
                None => {
                    core.on_readable(id, cx);
                    Poll::Pending
                }
            }
        })
    }

    /// Breaks it off for what broke off another.
    fn break_off(&self, error: &io::Error) {
        let (link, id) = self.handle();
        link.reset(id, code_in(error).unwrap_or(Code::Aborted));
    }

    /// How many datagrams were dropped at this end for want of room, both ways.
    pub(crate) fn dropped(&self) -> u64 {
        let (link, id) = self.handle();
        link.look(|core| core.link.dropped(id))
    }
}

/// How a flow ended, by the side that ended it.
pub(crate) enum FlowEnd {
    Near(io::Result<()>),
    Far(io::Result<()>),
}

/// Passes datagrams between two flows until either ends; the other is broken off for the same reason, or
/// ends in order as well. `passed` is told of each: whether it came from the near one, and how long it is.
pub(crate) async fn join_flows(
    near: &LinkFlow,
    far: &LinkFlow,
    mut passed: impl FnMut(bool, usize),
) -> FlowEnd {
    let end = poll_fn(|cx| {
        for _ in 0..TURN {
            let (up, down) = (near.poll_receive(cx), far.poll_receive(cx));
            if let Poll::Ready(Ok(Some(datagram))) = &up {
                passed(true, datagram.len());
                far.send(datagram);
            }
            if let Poll::Ready(Ok(Some(datagram))) = &down {
                passed(false, datagram.len());
                near.send(datagram);
            }
            match (up, down) {
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
                (_, Poll::Ready(Err(error))) => return Poll::Ready(FlowEnd::Far(Err(error))),
                (Poll::Ready(Err(error)), _) => return Poll::Ready(FlowEnd::Near(Err(error))),
                (Poll::Ready(Ok(None)), _) => return Poll::Ready(FlowEnd::Near(Ok(()))),
                (_, Poll::Ready(Ok(None))) => return Poll::Ready(FlowEnd::Far(Ok(()))),
                _ => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    match &end {
        FlowEnd::Near(Err(error)) => far.break_off(error),
        FlowEnd::Far(Err(error)) => near.break_off(error),
        FlowEnd::Near(Ok(())) | FlowEnd::Far(Ok(())) => {}
    }
    end
}

/// Passes datagrams between a flow and a service until either ends. A service ends none but by refusing
/// what it is sent.
pub(crate) async fn join_peer(flow: &LinkFlow, peer: &UdpPeer) -> FlowEnd {
    poll_fn(|cx| {
        for _ in 0..TURN {
            let up = flow.poll_receive(cx);
            match &up {
                Poll::Ready(Ok(Some(datagram))) => {
                    if let Err(error) = peer.send(datagram) {
                        return Poll::Ready(FlowEnd::Far(Err(error)));
                    }
                }
                Poll::Ready(Ok(None)) => return Poll::Ready(FlowEnd::Near(Ok(()))),
                Poll::Ready(Err(_)) | Poll::Pending => {}
            }
            let down = peer.poll_receive(cx, |datagram| flow.send(datagram));
            match (up, down) {
                (_, Poll::Ready(Err(error))) => return Poll::Ready(FlowEnd::Far(Err(error))),
                (Poll::Ready(Err(error)), _) => return Poll::Ready(FlowEnd::Near(Err(error))),
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
                _ => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tieline_wire::tunnel::{Exporter, Key, Limits, Link, LinkId, Request, Side};

    use super::*;
    use crate::memory::Memory;
    use crate::sha::Sha;

    fn flow() -> LinkFlow {
        let key = Key::first(&Sha, &Exporter([1; 32]));
        let (id, beat) = (LinkId([2; 16]), Duration::from_secs(15));
        let link = Link::new(id, Side::Dialer, Limits::DEFAULT, key, beat, Clock::now());
        let link = LiveLink::counted(link, false, Memory::new(1 << 30));
        let (service, subject) = ("dns".into(), "".into());
        let request = Request { service, subject, permit: 0, trace: [0; 16], why: "".into(), flow: true };
        LinkFlow::new(link.open(request).unwrap())
    }

    #[test]
    fn half_a_minute_of_silence_ends_a_flow() {
        let flow = flow();
        let (link, _) = flow.handle();
        let cx = &mut Context::from_waker(Waker::noop());
        flow.send(b"the last word");
        link.act(|core| core.link.on_time(Clock::now()));
        assert!(flow.poll_receive(cx).is_pending());
        link.act(|core| core.link.on_time(Clock::now().after(QUIET_MAX)));
        let Poll::Ready(Err(error)) = flow.poll_receive(cx) else { panic!("it lives") };
        assert_eq!(code_in(&error), Some(Code::Idle));
        flow.send(b"too late");
    }
}
