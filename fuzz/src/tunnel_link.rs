//! A link whose peer says anything at all.

use std::time::Duration;

use tieline_base::Moment;
use tieline_wire::Parsed;
use tieline_wire::tunnel::{
    Epoch, Event, Exporter, Hashing, Key, Limits, Link, LinkError, LinkId, Offer, Patience, Request, Side,
    StreamId, parse,
};

const LIMITS: Limits =
    Limits { streams: 16, budget: 128 << 10, first_credit: 4 << 10, window: 8 << 10, window_max: 32 << 10 };

/// What waits of a flow in one direction, and of all flows in both.
const FLOW_MAX: u64 = 64 << 10;
const DATAGRAMS_MAX: u64 = 2 << 20;

/// The peer's bytes are frames to the link, with commands of ours in between: whatever comes, memory stays
/// within the contract, nothing ends twice, and a link that goes on can be talked to.
pub fn tunnel_link(data: &[u8]) {
    let Some((&first, mut rest)) = data.split_first() else { return };
    let side = if first & 1 == 0 { Side::Dialer } else { Side::Acceptor };
    let key = Key::first(&Weak, &Exporter([1; 32]));
    let mut link = Link::new(LinkId([2; 16]), side, LIMITS, key, Duration::from_secs(15), Moment(0));
    let mut now = Moment(0);
    let mut live = Vec::new();
    let mut out = Vec::new();
    let mut offer = None;
    while let Some((&command, behind)) = rest.split_first() {
        // A frame's type, or one of the bytes that no frame begins with: a command.
        rest = match command {
            0x40.. => {
                obey(&mut link, command, &mut now, &mut live, &mut out, &mut offer);
                behind
            }
            _ => match parse(rest) {
                Ok(Parsed::Done { value, consumed }) => {
                    if let Err(LinkError::Breach(_)) = link.receive(link.epoch(), value, now) {
                        return;
                    }
                    &rest[consumed..]
                }
                _ => return,
            },
        };
        events(&mut link, &mut live);
        bounded(&link);
    }
}

/// Something that our side does.
fn obey(
    link: &mut Link,
    command: u8,
    now: &mut Moment,
    live: &mut Vec<StreamId>,
    out: &mut Vec<u8>,
    offer: &mut Option<Offer>,
) {
    let stream = live.get(usize::from(command >> 4 & 3)).copied().unwrap_or(StreamId(2));
    out.clear();
    match command & 0xf {
        0 | 1 => {
            let flow = command & 1 == 1;
            let request = Request {
                service: "x".into(),
                subject: "y".into(),
                permit: 1,
                trace: [0; 16],
                why: "".into(),
                flow,
            };
            live.extend(link.open(request, *now));
        }
        2 => link.accept(stream),
        3 => link.refuse(stream, tieline_wire::tunnel::Code::Denied, "no"),
        4 => {
            link.write(stream, &[command; 5000], *now);
            link.send_datagram(stream, &[command; 40_000], *now);
        }
        5 => link.finish(stream),
        6 => {
            link.reset(stream, tieline_wire::tunnel::Code::Aborted);
            live.retain(|lives| *lives != stream);
        }
        7 => {
            link.drain(stream, link.readable(stream).len(), *now);
            link.take_datagram(stream);
        }
        8 => link.fill(out, 10_000, *now),
        9 => *now = now.after(Duration::from_millis(700)),
        10 => link.detach(link.epoch(), *now),
        11 => *offer = Some(link.resume(&Weak, Exporter([3; 32]), out)),
        12 => link.set_short(command & 0x10 == 0, *now),
        13 => link.set_patience(stream, Patience { detached: Duration::ZERO, idle: Some(Duration::ZERO) }),
        14 => drop(link.prepare_move(*now)),
        _ => link.hurry(*now),
    }
    link.on_time(*now);
}

fn events(link: &mut Link, live: &mut Vec<StreamId>) {
    while let Some(event) = link.event() {
        match event {
            Event::Offered { stream, .. } => {
                assert!(!live.contains(&stream), "{stream} is offered twice");
                live.push(stream);
            }
            Event::Refused { stream, .. } | Event::Closed(stream) | Event::Reset { stream, .. } => {
                let at = live.iter().position(|lives| *lives == stream);
                live.remove(at.unwrap_or_else(|| panic!("{stream} ends, and did not live")));
            }
            _ => {}
        }
    }
}

/// The contract on memory, whatever the peer does.
fn bounded(link: &Link) {
    assert!(link.promised() <= LIMITS.budget);
    assert!(link.held() <= 3 * LIMITS.budget + DATAGRAMS_MAX);
    assert!(link.largest().is_none_or(|(_, held)| held <= 2 * LIMITS.window_max.max(FLOW_MAX)));
    assert!(link.streams().count() <= LIMITS.streams && link.flows() <= LIMITS.streams / 2);
    assert!(link.epoch() >= Epoch::FIRST);
}

/// No hash at all: what is tried here does not depend on one.
struct Weak;

impl Hashing for Weak {
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut sum = [0; 32];
        for (at, byte) in parts.iter().flat_map(|part| part.iter()).enumerate() {
            sum[at % 32] ^= byte;
        }
        sum
    }

    fn hmac_sha256(&self, key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
        let parts: Vec<&[u8]> = std::iter::once(&key[..]).chain(parts.iter().copied()).collect();
        self.sha256(&parts)
    }
}
