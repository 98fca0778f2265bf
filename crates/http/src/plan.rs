//! From the bytes of a head to what is to be done: parsed once, and the same for routing and for forwarding.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use tieline_base::{ClientAddr, Fault, Moment, Priority, Reason, Stage, Whose};
use tieline_conn::HashBy;
use tieline_policy::Permit;
use tieline_pool::Endpoint;
use tieline_pool::balance::stable_key;
use tieline_registry::Asked;
use tieline_wire::http1::{
    self as wire, HttpError, Kind, Path, Request, RequestBody, RequestKind, Room, Version, match_form,
    parse_request, quick_request,
};

use crate::Http;
use crate::answer::Form;
use crate::client::Client;
use crate::cookies::cookies;
use crate::forward::{self, Origin};
use crate::forwarders::{self, Speaking};
use crate::guard::{self, Held, HeldRoom, Slot, Verdict};
use crate::heads;
use crate::mirror::{Copy, Mirror};
use crate::session::Ticket;
use crate::site::{Action, Ask, Target};
use crate::split::Split;
use crate::story::Story;

/// What is to be done for one request.
pub(crate) struct Plan {
    /// Where it goes and the proof that it may, or why it goes nowhere; until that is taken out.
    pub(crate) way: Option<Result<(Arc<Target>, Permit), Fault>>,
    /// Where it was asked of, for redirects: the host without its port, the path and the query.
    pub(crate) asked: Option<Box<(String, String, String)>>,
    /// The head for the upstream; empty if the route answers itself.
    pub(crate) head: Vec<u8>,
    pub(crate) body: RequestBody,
    /// How much of the body is to be read past behind an answer, which nobody wants.
    pub(crate) to_pass_over: u64,
    pub(crate) kind: RequestKind,
    pub(crate) version: Version,
    /// Whether the client wants to go on behind this exchange.
    pub(crate) keep_alive: bool,
    /// Whether doing it twice does no harm.
    pub(crate) idempotent: bool,
    pub(crate) expects_continue: bool,
    pub(crate) te_trailers: bool,
    /// For whom it is asked.
    pub(crate) client: ClientAddr,
    /// What the `hash` balance goes by.
    pub(crate) hash: u64,
    /// What the route's guards say, until it is obeyed.
    pub(crate) verdict: Option<Box<Verdict>>,
    /// What the answer tells of the route's rates, in whole lines.
    pub(crate) quota: Option<Rc<[u8]>>,
    /// The body as far as it was read already.
    pub(crate) held: Option<Box<Held>>,
    /// The memory that its body takes.
    pub(crate) held_room: Option<HeldRoom>,
    /// Its place among those that are under way.
    pub(crate) slot: Option<Slot>,
    /// Another Tieline before us has tried it elsewhere; whoever says so wrongly has one try for it.
    pub(crate) retried_before: bool,
    /// How important it says it is: it can only say that it is less than its way.
    pub(crate) priority: Option<Priority>,
    /// Where its client was before.
    pub(crate) ticket: Option<Ticket>,
    /// Whether its client asked by TLS.
    pub(crate) secure: bool,
    /// A copy of it to be sent elsewhere.
    pub(crate) copy: Option<Box<Copy>>,
}

/// Reads the head at the beginning of `bytes` and decides, if the head is whole and ordinary: what is to be
/// done goes to `plan`, and how long the head is is returned. What is not, may become so: [`make`] judges it
/// once it is whole.
pub(crate) fn at_once(
    client: &mut Client,
    http: &Http,
    bytes: &[u8],
    story: &mut Story,
    plan: &mut Option<Plan>,
) -> Result<Option<usize>, Fault> {
    let mut room = Room::knowing(client.asked());
    let Some((request, length)) = quick_request(bytes, &http.settings.limits, &mut room) else {
        return Ok(None);
    };
    let came = story.began;
    decide(client, http, &request, length, story, came, plan)?;
    // A stream has one request.
    let is_news = request.host != client.asked() && request.host.len() <= KNOWN_MAX;
    let news = (is_news && !client.connection.is_inside()).then(|| Box::from(request.host));
    drop(room);
    if let Some(host) = news {
        client.asks(host);
    }
    Ok(Some(length))
}

/// How long a host is at most that is remembered from one request to the next, in bytes.
const KNOWN_MAX: usize = 64;

/// Reads the head in `head`, which was whole `now`, and decides: what is to be done goes to `plan`.
pub(crate) fn make(
    client: &Client,
    http: &Http,
    head: &[u8],
    story: &mut Story,
    now: Moment,
    plan: &mut Option<Plan>,
) -> Result<(), Fault> {
    let mut room = Room::new();
    let request = parse_request(head, &http.settings.limits, &mut room).map_err(unreadable)?;
    decide(client, http, &request, head.len(), story, now, plan)
}

/// What is to be done for `request`, whose head is so long, goes to `plan`: it is large, and stays there.
fn decide(
    client: &Client,
    http: &Http,
    request: &Request<'_, '_>,
    length: usize,
    story: &mut Story,
    now: Moment,
    plan: &mut Option<Plan>,
) -> Result<(), Fault> {
    let host = host_name(request.host);
    note(request, &host, client.connection.is_inside(), story);
    let speaking = speaking(client, http, request, story)?;
    is_acceptable(client, http, request, &host)?;
    let ask = Ask {
        host: &host,
        path: &path_form(&request.target),
        query: request.target.query,
        method: request.method.as_str(),
        header: &|name, fits| has_field(request, speaking.trusted, name, fits),
    };
    let split = http.site.find(&ask);
    let key = |by: &HashBy| key(by, client, request, speaking.client);
    let (ticket, chosen) = split.map_or((None, None), |split| choose(split, request, &key));
    let target = chosen.as_ref();
    story.routed = target.is_some();
    // Guards are asked behind it: strangers must not use up what others may do.
    let permitted = client.connection.decide(target.map(|target| &target.route), speaking.client, now);
    let let_in = target.filter(|_| permitted.is_ok());
    let verdict = let_in.and_then(|target| guard::ask(target, &ask, speaking.client, request, now, story));
    let goes_on = target.is_some_and(|target| matches!(target.action, Action::Forward));
    let refused = permitted.is_err() || verdict.as_deref().is_some_and(Verdict::refuses);
    // Nothing is written for what goes nowhere.
    let written = goes_on && !refused;
    let mut forwarded = if written { heads::take(length + ADDED) } else { Vec::new() };
    let request_id = story.request_id();
    let origin = client.origin(http, &speaking, request.host, &request_id);
    let mut copied = None;
    if let Some(target) = target.filter(|_| written) {
        forward::request(request, &origin, target.rewrite.as_deref(), &mut forwarded)?;
        copied = copy(client, request, &origin, target)?;
    }
    let hash = target.map_or(0, |target| key(&target.route.hash_by));
    *plan = Some(Plan {
        way: Some(permitted.and_then(|permit| Ok((chosen.ok_or_else(no_route)?, permit)))),
        asked: (!goes_on && !refused).then(|| Box::new(asked(request, &host))),
        head: forwarded,
        body: request.body,
        to_pass_over: 0,
        kind: RequestKind { upgrade: forward::upgrade(request).is_some(), ..request.kind() },
        version: request.version,
        keep_alive: request.keep_alive,
        idempotent: request.method.is_idempotent(),
        expects_continue: request.expects_continue,
        te_trailers: request.te_trailers,
        client: speaking.client,
        hash,
        verdict,
        quota: story.quota.clone(),
        held: None,
        held_room: None,
        slot: None,
        retried_before: request.fields.of_kind(Kind::Attempt).is_some(),
        priority: request.fields.of_kind(Kind::Priority).and_then(Priority::from_word),
        ticket,
        secure: matches!(speaking.scheme.unwrap_or(origin.scheme), "https" | "wss"),
        copy: copied,
    });
    Ok(())
}

/// The form in which a path is matched.
fn path_form<'b>(target: &wire::Target<'b>) -> Cow<'b, str> {
    // What has nothing to be decoded is known already.
    if target.is_plain() { Cow::Borrowed(target.path) } else { match_form(target.path) }
}

/// Whether the request means one thing to everybody, is for this server, and does not go in a circle.
fn is_acceptable(client: &Client, http: &Http, request: &Request<'_, '_>, host: &str) -> Result<(), Fault> {
    if !request.target.is_plain() {
        Path::checked(request.target.path).map_err(|error| bad_request().because(error))?;
    }
    // Whoever was promised another server's name must not be led to this one (RFC 9110 §15.5.20).
    let promised = client.connection.tls().and_then(|tls| tls.server_name.as_deref());
    if promised.is_some_and(|name| name != host) {
        return Err(Fault::new(Stage::Route, Whose::Client, Reason::RefusedMisdirected));
    }
    if forward::loops(request, &http.settings.node) {
        return Err(Fault::new(Stage::Route, Whose::Us, Reason::RefusedLoop));
    }
    Ok(())
}

impl Plan {
    /// Whether the connection goes on behind an answer for which the body was not read: what is left of one
    /// would be taken for the next request.
    pub(crate) fn stays_open(&self) -> bool {
        let read = self.held.as_ref().is_some_and(|held| held.is_whole());
        let none = matches!(self.body, RequestBody::None) || self.to_pass_over > 0;
        self.keep_alive && (read || none)
    }

    /// What is wanted of an upstream connection.
    pub(crate) fn ask(&self) -> tieline_pool::Ask {
        let wish = self.ticket.map(|ticket| ticket.endpoint);
        tieline_pool::Ask { hash: self.hash, wish, ..tieline_pool::Ask::default() }
    }

    /// The lines for the head of an answer of `endpoint` that are the route's own.
    pub(crate) fn lines(&self, target: &Target, endpoint: &Endpoint) -> Option<Vec<u8>> {
        let cookie = self.cookie(target, endpoint);
        match &self.quota {
            None => cookie,
            Some(quota) => Some([quota, &cookie.unwrap_or_default()[..]].concat()),
        }
    }

    /// The line for the head of an answer that brings the client back to `endpoint`, where the route has
    /// sessions and it does not come back there anyway.
    fn cookie(&self, target: &Target, endpoint: &Endpoint) -> Option<Vec<u8>> {
        let (session, upstream) = (target.session.as_ref()?, target.route.upstream.as_ref()?);
        let stays = match &self.ticket {
            Some(ticket) if ticket.endpoint == endpoint.key() => !session.is_aging(ticket),
            // Full at the moment: its sessions are kept.
            Some(ticket) => upstream.grants_wish(ticket.endpoint),
            None => false,
        };
        let line = || session.line(stable_key(upstream.name()), endpoint.key(), self.secure);
        if stays { None } else { line() }
    }

    /// Whether its body may come.
    pub(crate) fn fits(&self, http: &Http) -> Result<(), Fault> {
        match (self.body, http.settings.body) {
            (RequestBody::Length(length), Some(most)) if length > most => Err(too_large()),
            _ => Ok(()),
        }
    }
}

pub(crate) fn no_route() -> Fault {
    Fault::new(Stage::Route, Whose::Client, Reason::RefusedNoRoute)
}

pub(crate) fn too_large() -> Fault {
    Fault::new(Stage::Relay, Whose::Client, Reason::LimitBody)
}

/// About what we add to a head.
const ADDED: usize = 256;

/// `inside`: it came over HTTP/2.
fn note(request: &Request<'_, '_>, host: &str, inside: bool, story: &mut Story) {
    story.asked = Asked::new(request.method.as_str(), host, request.target.raw());
    story.bodyless = request.kind().head;
    let called = if inside { Form::of_call(request.fields.get("content-type")) } else { None };
    story.form = called.unwrap_or_else(|| Form::of(request.fields.of_kind(Kind::Accept)));
}

/// Whether `request` has a field of this name that fits, among those that routes may go by.
pub(crate) fn has_field(
    request: &Request<'_, '_>,
    trusted: bool,
    name: &str,
    fits: &mut dyn FnMut(&[u8]) -> bool,
) -> bool {
    let mut fields = request.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    fields.any(|field| forward::is_routable(field.kind, trusted) && fits(field.value))
}

/// The copy that is sent elsewhere, if one is. A connection that is upgraded cannot be copied.
fn copy(
    client: &Client,
    request: &Request<'_, '_>,
    origin: &Origin<'_>,
    target: &Target,
) -> Result<Option<Box<Copy>>, Fault> {
    let drawn = |mirror: &&Arc<Mirror>| forward::upgrade(request).is_none() && mirror.draws();
    let Some(mirror) = target.mirror.as_ref().filter(drawn) else { return Ok(None) };
    let mut head = Vec::with_capacity(ADDED);
    forward::copy(request, origin, target.rewrite.as_deref(), &mut head)?;
    let kind = RequestKind { upgrade: false, ..request.kind() };
    let copy = Copy::new(&client.connection, origin.speaking.client, mirror, head, kind);
    Ok(copy.map(Box::new))
}

/// For whom it is asked; the table and the story learn of it where it is not who holds the connection.
fn speaking<'b>(
    client: &Client,
    http: &Http,
    request: &Request<'_, 'b>,
    story: &mut Story,
) -> Result<Speaking<'b>, Fault> {
    let record = client.connection.record();
    let speaking = forwarders::speaking(&request.fields, record.sender(), &http.settings.trusted)?;
    story.client = (!speaking.hops.is_empty()).then_some(speaking.client);
    record.set_client(story.client);
    story.called = speaking.request_id.map(Into::into);
    Ok(speaking)
}

/// The number that stands for what is equal by `by`; 0 by nothing.
fn key(by: &HashBy, client: &Client, request: &Request<'_, '_>, speaks: ClientAddr) -> u64 {
    let said = match by {
        HashBy::Field(name) => request.fields.get(name),
        HashBy::Cookie(name) => cookies(&request.fields, name).next(),
        HashBy::Nothing => return 0,
        HashBy::Remote | HashBy::ServerName => None,
    };
    match said {
        Some(value) => stable_key(&String::from_utf8_lossy(value)),
        None => client.connection.hash(by, speaks),
    }
}

/// Where it was asked of, for redirects: the host without its port, the path and the query.
fn asked(request: &Request<'_, '_>, host: &str) -> (String, String, String) {
    let query = request.target.query.map(|query| format!("?{query}")).unwrap_or_default();
    (host.to_owned(), request.target.path.to_owned(), query)
}

/// Which of its upstreams: the one where the client was before, else one that is drawn.
fn choose(
    split: &Split,
    request: &Request<'_, '_>,
    key: &dyn Fn(&HashBy) -> u64,
) -> (Option<Ticket>, Option<Arc<Target>>) {
    match split.came_back(&request.fields) {
        Some((ticket, target)) => (Some(ticket), Some(target.clone())),
        None => (None, Some(split.choose(split.by().map_or(0, |by| draw(by, key))).clone())),
    }
}

/// A number for the choice among upstreams: the same for what is equal by `by`.
fn draw(by: &HashBy, key: &dyn Fn(&HashBy) -> u64) -> u64 {
    if *by == HashBy::Nothing { fastrand::u64(..) } else { key(by) }
}

/// In lower case and without its port, as routes name it.
pub(crate) fn host_name(authority: &str) -> Cow<'_, str> {
    // Nearly all have no port and no capitals; the good case has to look at every byte anyway.
    let is_name = |so_far: bool, byte: &u8| so_far & (*byte != b':') & !byte.is_ascii_uppercase();
    if authority.as_bytes().iter().fold(true, is_name) {
        return Cow::Borrowed(authority);
    }
    let name = match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => &authority[..colon],
        _ => authority,
    };
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

pub(crate) fn unreadable(error: HttpError) -> Fault {
    bad_request().because(error)
}

fn bad_request() -> Fault {
    Fault::new(Stage::Settle, Whose::Client, Reason::ProtocolError)
}
