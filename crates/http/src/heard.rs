//! The head of an answer: from what an endpoint said to what the client gets.

use std::time::Duration;

use tieline_base::Fault;
use tieline_pool::Endpoint;
use tieline_wire::http1::{
    HeadScan, Limits, Response, ResponseBody, Room, Version, parse_response, quick_response,
};

use crate::buffer::Buffer;
use crate::exchange::wrong_answer;
use crate::forward::{self, Ours, Stay, Told};
use crate::heads;
use crate::plan::Plan;
use crate::site::Target;
use crate::source::Source;
use crate::transfer::COPIED_MAX;
use crate::tries;

/// What an endpoint said, as the client gets it.
pub(crate) enum Heard {
    /// Another answer follows; empty if the client does not get this one.
    Interim(Vec<u8>),
    /// The answer.
    Final(Final),
}

/// An answer as the client gets it.
pub(crate) struct Final {
    pub(crate) head: Vec<u8>,
    pub(crate) status: u16,
    /// For how long it asks for patience, where it says that it cannot serve.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) source: Source,
    pub(crate) told: Told,
    pub(crate) stay: Stay,
    /// Whether the upstream's connection may be used again behind it.
    pub(crate) reusable: bool,
    pub(crate) idle_allowed: Option<Duration>,
    pub(crate) trailers: bool,
}

/// What answers may be: endpoints are trusted further than clients.
pub(crate) const ANSWER_LIMITS: Limits = Limits { line: 8 * 1024, head: 64 * 1024, fields: 128 };

/// About what we add to a head.
const ADDED: usize = 64;

/// How things stand when an answer comes.
#[derive(Clone, Copy)]
pub(crate) struct Standing {
    /// The whole request was sent.
    pub(crate) sent: bool,
    /// The client's connection ends behind this answer.
    pub(crate) leaving: bool,
}

/// Takes the head of an answer from `output` once it is whole, and writes what the client gets for it. `scan`
/// remembers how far the head was sought.
pub(crate) fn hear(
    plan: &Plan,
    target: &Target,
    from: &Endpoint,
    output: &mut Buffer,
    scan: &mut HeadScan,
    standing: Standing,
) -> Result<Option<Heard>, Fault> {
    let at_once = if scan.is_fresh() { at_once(plan, target, from, output.bytes(), standing) } else { None };
    let (heard, length) = match at_once {
        Some(heard) => heard,
        None => match scan.find(output.bytes(), &ANSWER_LIMITS).map_err(wrong_answer)? {
            Some(length) => (read(plan, target, from, &output.bytes()[..length], standing)?, length),
            None => return Ok(None),
        },
    };
    output.consume(length);
    Ok(Some(heard))
}

/// The answer whose head is at the beginning of `bytes`, if that is whole and ordinary.
fn at_once(
    plan: &Plan,
    target: &Target,
    from: &Endpoint,
    bytes: &[u8],
    standing: Standing,
) -> Option<(Heard, usize)> {
    let mut room = Room::new();
    let (response, length) = quick_response(bytes, &ANSWER_LIMITS, &mut room, plan.kind)?;
    let behind = bytes.len() - length;
    let room = length + if behind <= COPIED_MAX { behind } else { 0 };
    Some((understand(plan, target, from, &response, room, standing), length))
}

fn read(
    plan: &Plan,
    target: &Target,
    from: &Endpoint,
    head: &[u8],
    standing: Standing,
) -> Result<Heard, Fault> {
    let mut room = Room::new();
    let response = parse_response(head, &ANSWER_LIMITS, &mut room, plan.kind).map_err(wrong_answer)?;
    Ok(understand(plan, target, from, &response, head.len(), standing))
}

fn understand(
    plan: &Plan,
    target: &Target,
    from: &Endpoint,
    response: &Response<'_, '_>,
    room: usize,
    standing: Standing,
) -> Heard {
    let mut out = heads::take(room + ADDED);
    if response.is_interim() {
        // 100 is for those who wait for it; HTTP/1.0 knows none at all.
        let wanted = plan.version == Version::Http11 && (response.status != 100 || plan.expects_continue);
        if wanted {
            forward::response(response, Told::AsItIs, Stay::Silent, Ours::default(), &mut out);
        }
        return Heard::Interim(out);
    }
    let told = match response.body {
        ResponseBody::None | ResponseBody::Length(_) => Told::AsItIs,
        _ if plan.version == Version::Http10 => Told::Close,
        ResponseBody::Chunked | ResponseBody::UntilClose => Told::Chunked,
    };
    let ends = standing.leaving || !standing.sent || !plan.keep_alive;
    let stay = match (response.upgrade, plan.version) {
        (true, _) => Stay::Upgrade,
        _ if ends || told == Told::Close => Stay::Close,
        (_, Version::Http10) => Stay::KeepAlive,
        (_, Version::Http11) => Stay::Silent,
    };
    let lines = plan.lines(target, from);
    let ours = Ours { edits: target.edits(), lines: lines.as_deref().unwrap_or_default() };
    forward::response(response, told, stay, ours, &mut out);
    Heard::Final(Final {
        head: out,
        status: response.status,
        retry_after: tries::retry_after(response),
        told,
        stay,
        reusable: response.keep_alive && standing.sent,
        idle_allowed: response.keep_alive_timeout.map(|seconds| Duration::from_secs(seconds.into())),
        trailers: plan.te_trailers,
        source: response.body.into(),
    })
}
