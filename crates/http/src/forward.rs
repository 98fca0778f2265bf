//! What the next hop gets to read: heads written anew from what was parsed, never passed on as they came.

use std::net::IpAddr;

use tieline_base::text::{push_ip, push_percent};
use tieline_base::{ClientAddr, Fault, Reason, Stage, Whose};
use tieline_wire::http1::{
    Fields, Kind, Method, Request, RequestBody, Response, Version, encode_request_line, encode_status_line,
    push_field,
};

use crate::forwarders::Speaking;
use crate::rewrite::{Edits, Rewrite};

/// Who the request comes from, as its upstream is told.
pub(crate) struct Origin<'a> {
    pub(crate) speaking: &'a Speaking<'a>,
    /// Who holds the connection.
    pub(crate) sender: ClientAddr,
    /// Who was proved, if anybody was.
    pub(crate) identity: Option<&'a str>,
    pub(crate) tell: Tell,
    /// How the sender asked us.
    pub(crate) scheme: &'static str,
    pub(crate) host: &'a str,
    pub(crate) request_id: &'a [u8],
    /// Our name in `Via`.
    pub(crate) node: &'a str,
    /// Whether it came over HTTP/2.
    pub(crate) http2: bool,
    /// What [`usual`] says of its connection, where that was asked.
    pub(crate) usual: Option<&'a [u8]>,
}

/// By which fields upstreams are told where a request comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tell {
    /// `X-Forwarded-For`, `-Proto` and `-Host`, and `X-Real-IP`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// All of them.
    Both,
}

/// The upgrade that is passed on: one token, on a GET without a body; never HTTP/2's.
pub(crate) fn upgrade<'b>(request: &Request<'_, 'b>) -> Option<&'b str> {
    let fits = matches!(request.method, Method::Get) && matches!(request.body, RequestBody::None);
    request.upgrade.filter(|token| fits && !token.eq_ignore_ascii_case("h2c"))
}

/// Whether the request has passed us before: its `Via` names us.
pub(crate) fn loops(request: &Request<'_, '_>, node: &str) -> bool {
    let names_us = |value: &[u8]| {
        let mut words = value.split(|byte| matches!(byte, b' ' | b',' | b'\t'));
        words.any(|word| word == node.as_bytes())
    };
    request.fields.all_of_kind(Kind::Via).any(names_us)
}

/// Writes the head that the upstream gets.
///
/// # Errors
/// The path that the route makes of the one that came could be read as the name of a host.
pub(crate) fn request(
    request: &Request<'_, '_>,
    origin: &Origin<'_>,
    rewrite: Option<&Rewrite>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let trusted = origin.speaking.trusted;
    let changed = rewrite.is_some_and(|rewrite| !rewrite.leaves_requests());
    if !changed && request.is_canonical() {
        // By far the most: all that goes on lies there as it is to be written.
        request.fields.copy_head(|kind| kind == Kind::Host || goes_up(kind, trusted), out);
    } else {
        request_line(request, rewrite, out)?;
        fields(request, rewrite, |kind| goes_up(kind, trusted), out);
    }
    match request.body {
        RequestBody::Chunked => push_field("Transfer-Encoding", b"chunked", out),
        RequestBody::Length(_) | RequestBody::None => {}
    }
    if request.te_trailers {
        push_field("TE", b"trailers", out);
    }
    if let Some(token) = upgrade(request) {
        push_field("Connection", b"Upgrade", out);
        push_field("Upgrade", token.as_bytes(), out);
    }
    provenance(request, origin, out);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Writes the head of a copy, as far as it is known before the body is: without the length of one that comes
/// in chunks, and without the empty line at the end. What only the original may ask for is left out.
///
/// # Errors
/// As of [`request`].
pub(crate) fn copy(
    request: &Request<'_, '_>,
    origin: &Origin<'_>,
    rewrite: Option<&Rewrite>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    request_line(request, rewrite, out)?;
    let goes = |kind| kind != Kind::Expect && goes_up(kind, origin.speaking.trusted);
    fields(request, rewrite, goes, out);
    push_field("X-Tieline-Mirror", b"1", out);
    provenance(request, origin, out);
    Ok(())
}

fn request_line(
    request: &Request<'_, '_>,
    rewrite: Option<&Rewrite>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let Some(path) = rewrite.and_then(|rewrite| rewrite.path.as_ref()) else {
        encode_request_line(&request.method, &request.target, out);
        return Ok(());
    };
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    if !path.write(request.target.path, out) {
        let fault = Fault::new(Stage::Route, Whose::Client, Reason::ProtocolError);
        return Err(fault.because("the path would begin with two slashes once it is rewritten"));
    }
    if let Some(query) = request.target.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    Ok(())
}

/// The host, and what came and goes on.
fn fields(
    request: &Request<'_, '_>,
    rewrite: Option<&Rewrite>,
    goes: impl Fn(Kind) -> bool,
    out: &mut Vec<u8>,
) {
    let host = rewrite.and_then(|rewrite| rewrite.host.as_deref()).unwrap_or(request.host);
    push_field("Host", host.as_bytes(), out);
    match rewrite.map(|rewrite| &rewrite.request).filter(|edits| !edits.is_empty()) {
        None => request.fields.copy_kept(goes, out),
        Some(edits) => copy_edited(&request.fields, edits, goes, out),
    }
}

/// Copies the lines that `keep` and `edits` want, and then what the edits bring.
fn copy_edited(fields: &Fields<'_, '_>, edits: &Edits, keep: impl Fn(Kind) -> bool, out: &mut Vec<u8>) {
    for field in fields.iter().filter(|field| keep(field.kind) && edits.keeps(field.name)) {
        out.extend_from_slice(field.line);
    }
    edits.write(out);
}

/// Which way it came.
fn provenance(request: &Request<'_, '_>, origin: &Origin<'_>, out: &mut Vec<u8>) {
    let Speaking { hops, scheme, host, .. } = origin.speaking;
    let usual = request.version == Version::Http11 && hops.is_empty() && scheme.is_none();
    match origin.usual.filter(|_| usual && request.fields.of_kind(Kind::Via).is_none()) {
        Some(lines) => out.extend_from_slice(lines),
        None => lasting(request.version, request.fields.all_of_kind(Kind::Via), origin, out),
    }
    if origin.tell != Tell::Forwarded {
        push_field("X-Forwarded-Host", host.unwrap_or(origin.host).as_bytes(), out);
    }
    if origin.tell != Tell::XForwarded {
        forwarded(origin, out);
    }
    push_field("X-Request-Id", origin.request_id, out);
}

/// What is told of each request of a connection alike, if nobody else had it before.
pub(crate) fn usual(origin: &Origin<'_>) -> Box<[u8]> {
    let mut out = Vec::new();
    lasting(Version::Http11, std::iter::empty(), origin, &mut out);
    out.into()
}

/// What does not change from one request to the next, where they come the same way.
fn lasting<'b>(
    version: Version,
    before: impl Iterator<Item = &'b [u8]>,
    origin: &Origin<'_>,
    out: &mut Vec<u8>,
) {
    via(version, before, origin, out);
    if origin.tell != Tell::Forwarded {
        x_forwarded(origin, out);
    }
    if let Some(name) = origin.identity {
        out.extend_from_slice(b"X-Tieline-Identity: ");
        push_name(name, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// The client and everybody between who is vouched for. What a client wrote left of that is nobody's word.
fn x_forwarded(origin: &Origin<'_>, out: &mut Vec<u8>) {
    let Speaking { client, hops, scheme, .. } = origin.speaking;
    if let Some(ip) = client.ip() {
        out.extend_from_slice(b"X-Forwarded-For: ");
        let start = out.len();
        push_ip(ip, out);
        let written = start..out.len();
        for hop in hops.iter().rev().skip(1) {
            out.extend_from_slice(b", ");
            push_ip(*hop, out);
        }
        out.extend_from_slice(b"\r\nX-Real-IP: ");
        out.extend_from_within(written);
        out.extend_from_slice(b"\r\n");
    }
    push_field("X-Forwarded-Proto", scheme.unwrap_or(origin.scheme).as_bytes(), out);
}

/// RFC 7239: an element for each hop, the client's first, with what the hop behind it was asked.
fn forwarded(origin: &Origin<'_>, out: &mut Vec<u8>) {
    let Speaking { hops, scheme, host, .. } = origin.speaking;
    out.extend_from_slice(b"Forwarded: ");
    let (scheme, host) = (scheme.unwrap_or(origin.scheme), host.unwrap_or(origin.host));
    if let [.., _, client] = hops[..] {
        push_element(Some(client), Some((scheme, host)), out);
        for hop in hops.iter().skip(1).rev().skip(1) {
            out.extend_from_slice(b", ");
            push_element(Some(*hop), None, out);
        }
        out.extend_from_slice(b", ");
        push_element(origin.sender.ip(), Some((origin.scheme, origin.host)), out);
    } else {
        push_element(origin.sender.ip(), Some((scheme, host)), out);
    }
    out.extend_from_slice(b"\r\n");
}

fn push_element(node: Option<IpAddr>, asked: Option<(&str, &str)>, out: &mut Vec<u8>) {
    match node {
        Some(ip @ IpAddr::V4(_)) => {
            out.extend_from_slice(b"for=");
            push_ip(ip, out);
        }
        Some(ip @ IpAddr::V6(_)) => {
            out.extend_from_slice(b"for=\"[");
            push_ip(ip, out);
            out.extend_from_slice(b"]\"");
        }
        None => out.extend_from_slice(b"for=unknown"),
    }
    let Some((scheme, host)) = asked else { return };
    // What would need an escape within the quotes is in no host that is asked for.
    if !host.is_empty() && !host.contains(['"', '\\']) {
        out.extend_from_slice(b";host=\"");
        out.extend_from_slice(host.as_bytes());
        out.push(b'"');
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(scheme.as_bytes());
}

/// Whether routes may go by a field: by what is passed on as it came, so that who is behind sees the same;
/// and by the word of those who are trusted.
pub(crate) fn is_routable(kind: Kind, trusted: bool) -> bool {
    goes_up(kind, trusted) || trusted && matches!(kind, Kind::Forwarding | Kind::RequestId)
}

/// `trusted`: by the word of somebody who is.
fn goes_up(kind: Kind, trusted: bool) -> bool {
    match kind {
        Kind::Claim => trusted,
        Kind::Host | Kind::Forwarding | Kind::Dropped | Kind::Via | Kind::RequestId => false,
        Kind::TransferEncoding => false,
        kind => !kind.is_hop_by_hop(),
    }
}

/// RFC 9110 §7.6.3: those before us, then us.
fn via<'b>(version: Version, before: impl Iterator<Item = &'b [u8]>, origin: &Origin<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Via: ");
    for before in before {
        out.extend_from_slice(before);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(match version {
        _ if origin.http2 => b"2 ",
        Version::Http10 => b"1.0 ",
        Version::Http11 => b"1.1 ",
    });
    out.extend_from_slice(origin.node.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// How the body of an answer is told to the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// By what the head says already: a length, or that there is none.
    AsItIs,
    /// In chunks.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// What is said to the client about its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stay {
    /// Nothing: HTTP/1.1 stays open.
    Silent,
    /// HTTP/1.0 stays open because it asked to.
    KeepAlive,
    /// It closes behind this answer.
    Close,
    /// It changes its protocol to this.
    Upgrade,
}

/// What a route puts into the heads of answers.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ours<'a> {
    pub(crate) edits: Option<&'a Edits>,
    /// Whole lines.
    pub(crate) lines: &'a [u8],
}

/// Writes the head that the client gets.
pub(crate) fn response(
    response: &Response<'_, '_>,
    told: Told,
    stay: Stay,
    ours: Ours<'_>,
    out: &mut Vec<u8>,
) {
    // RFC 9110 §8.6: these say nothing of a body, and who believed that one follows would wait for it.
    let length = told == Told::AsItIs && !matches!(response.status, 100..=199 | 204);
    let edits = ours.edits.filter(|edits| !edits.is_empty());
    let as_it_is = edits.is_none() && response.is_canonical();
    if !as_it_is {
        encode_status_line(response.status, response.reason, out);
    }
    match edits {
        None if as_it_is => response.fields.copy_head(|kind| goes_down(kind, length), out),
        None => response.fields.copy_kept(|kind| goes_down(kind, length), out),
        Some(edits) => {
            copy_edited(&response.fields, edits, |kind| goes_down(kind, length), out);
        }
    }
    out.extend_from_slice(ours.lines);
    if told == Told::Chunked {
        push_field("Transfer-Encoding", b"chunked", out);
    }
    match stay {
        Stay::Silent => {}
        Stay::KeepAlive => push_field("Connection", b"keep-alive", out),
        Stay::Close => push_field("Connection", b"close", out),
        Stay::Upgrade => {
            push_field("Connection", b"Upgrade", out);
            if let Some(token) = response.fields.get("upgrade") {
                push_field("Upgrade", token, out);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn goes_down(kind: Kind, length: bool) -> bool {
    match kind {
        Kind::TransferEncoding | Kind::AltSvc | Kind::Dropped => false,
        Kind::ContentLength => length,
        kind => !kind.is_hop_by_hop(),
    }
}

/// What is no visible ASCII, and the sign of that itself, goes as `%` and two hexadecimal digits: upstreams
/// differ in what they make of other bytes in a field.
fn push_name(name: &str, out: &mut Vec<u8>) {
    for byte in name.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(byte);
        } else {
            push_percent(byte, out);
        }
    }
}
