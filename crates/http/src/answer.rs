//! Answers of our own: what went wrong, in the form that the client asked for, and nothing of what lies
//! behind.

use tieline_base::text::{push_decimal, push_json, push_percent};
use tieline_base::{Fault, Reason};
use tieline_pool::LeaseError;
use tieline_wire::http1::{HttpError, push_field};

use crate::guard;
use crate::rewrite::Edits;

/// How the names of all forms of JSON end.
const JSON: &[u8] = b"json";

/// The form of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Form {
    /// RFC 9457.
    #[default]
    Problem,
    /// For people.
    Html,
    /// For programs that call procedures, and look at no status but their own.
    Grpc,
}

impl Form {
    /// The form for a request of this `Content-Type`, which came over HTTP/2.
    pub(crate) fn of_call(content_type: Option<&[u8]>) -> Option<Form> {
        content_type.filter(|kind| kind.starts_with(b"application/grpc")).map(|_| Form::Grpc)
    }

    /// The form that an `Accept` field asks for: a page if it names HTML before JSON.
    pub(crate) fn of(accept: Option<&[u8]>) -> Form {
        for listed in accept.unwrap_or_default().split(|byte| *byte == b',') {
            let kind = listed.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            if kind.eq_ignore_ascii_case(b"text/html") {
                return Form::Html;
            }
            if kind.len() >= JSON.len() && kind[kind.len() - JSON.len()..].eq_ignore_ascii_case(JSON) {
                return Form::Problem;
            }
        }
        Form::Problem
    }
}

/// The status that a client gets for `fault`.
pub(crate) fn status(fault: &Fault) -> u16 {
    if let Some(error) = fault.source.as_ref().and_then(|source| source.downcast_ref::<HttpError>())
        && fault.reason == Reason::ProtocolError
    {
        return error.status();
    }
    if let Some(status) = guard::status(fault) {
        return status;
    }
    match fault.reason {
        // Whether there is nothing or nothing for them looks the same to strangers.
        Reason::RefusedNoRoute | Reason::RefusedPolicy => 404,
        Reason::TimeoutRequestHead | Reason::TimeoutBodyGap | Reason::TimeoutMinRate => 408,
        Reason::LimitBody => 413,
        Reason::ProtocolError => 400,
        Reason::Unreachable | Reason::UpstreamReset | Reason::UpstreamProtocolError => 502,
        Reason::UpstreamClosed => 502,
        Reason::TimeoutConnect | Reason::TimeoutFirstByte | Reason::TimeoutGap => 504,
        Reason::RefusedLoop => 508,
        Reason::RefusedMisdirected => 421,
        Reason::Internal => 500,
        _ => 503,
    }
}

/// The title of `status`, as RFC 9110 §15 has it.
pub(crate) fn title(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        401 => "Unauthorized",
        403 => "Forbidden",
        410 => "Gone",
        429 => "Too Many Requests",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "Error",
    }
}

/// A whole answer: `detail` is for the client's eyes. `body` is false for an answer to HEAD.
pub(crate) fn encode(answer: &Answer<'_>, out: &mut Vec<u8>) {
    let title = title(answer.status);
    let (kind, body) = match answer.form {
        Form::Grpc => return grpc(answer, title, out),
        Form::Problem => ("application/problem+json", problem(answer, title)),
        Form::Html => ("text/html; charset=utf-8", page(answer, title).into_bytes()),
    };
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(u64::from(answer.status), out);
    out.push(b' ');
    out.extend_from_slice(title.as_bytes());
    out.extend_from_slice(b"\r\n");
    push_field("Content-Type", kind.as_bytes(), out);
    out.extend_from_slice(b"Content-Length: ");
    push_decimal(body.len() as u64, out);
    out.extend_from_slice(b"\r\n");
    push_field("Cache-Control", b"no-store", out);
    if !answer.request_id.is_empty() {
        push_field("X-Request-Id", answer.request_id.as_bytes(), out);
    }
    if answer.status == 503 && !answer.refusal.is_some_and(guard::is_refusal) {
        out.extend_from_slice(b"Retry-After: ");
        push_decimal(answer.refusal.map_or(1, retry_after), out);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(fault) = answer.refusal {
        guard::fields(fault, out);
    }
    out.extend_from_slice(answer.quota.unwrap_or_default());
    write_edits(answer.edits, out);
    if answer.close {
        push_field("Connection", b"close", out);
    }
    out.extend_from_slice(b"\r\n");
    if answer.body {
        out.extend_from_slice(&body);
    }
}

/// An answer of trailers alone, which end the call (gRPC over HTTP/2, "Responses").
fn grpc(answer: &Answer<'_>, title: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    push_field("Content-Type", b"application/grpc", out);
    out.extend_from_slice(b"Grpc-Status: ");
    push_decimal(grpc_status(answer.status), out);
    out.extend_from_slice(b"\r\nGrpc-Message: ");
    for byte in title.bytes().chain(*b": ").chain(answer.detail.bytes()) {
        match byte {
            b'%' | ..=0x1f | 0x7f.. => push_percent(byte, out),
            byte => out.push(byte),
        }
    }
    out.extend_from_slice(b"\r\n");
    if !answer.request_id.is_empty() {
        push_field("X-Request-Id", answer.request_id.as_bytes(), out);
    }
    push_field("Content-Length", b"0", out);
    out.extend_from_slice(answer.quota.unwrap_or_default());
    write_edits(answer.edits, out);
    out.extend_from_slice(b"\r\n");
}

/// The fields of the route, for those who look at them in any answer (CORS, HSTS). What an answer of our own
/// says of itself stands: an error is not what the route's answers are, and nobody may keep it.
fn write_edits(edits: Option<&Edits>, out: &mut Vec<u8>) {
    const OURS: [&str; 6] =
        ["content-type", "cache-control", "retry-after", "allow", "grpc-status", "grpc-message"];
    let ours = |name: &str| OURS.iter().any(|own| name.eq_ignore_ascii_case(own));
    for (name, value) in edits.into_iter().flat_map(|edits| edits.set.iter().chain(&edits.add)) {
        if !ours(name) {
            push_field(name, value.as_bytes(), out);
        }
    }
}

/// What `status` means in gRPC's own codes. Only what is safe to ask once more is `UNAVAILABLE`.
fn grpc_status(status: u16) -> u64 {
    const UNKNOWN: u64 = 2;
    const DEADLINE_EXCEEDED: u64 = 4;
    const PERMISSION_DENIED: u64 = 7;
    const RESOURCE_EXHAUSTED: u64 = 8;
    const UNIMPLEMENTED: u64 = 12;
    const INTERNAL: u64 = 13;
    const UNAVAILABLE: u64 = 14;
    const UNAUTHENTICATED: u64 = 16;
    match status {
        400 | 500 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 | 405 | 501 => UNIMPLEMENTED,
        408 | 504 => DEADLINE_EXCEEDED,
        413 | 429 | 431 => RESOURCE_EXHAUSTED,
        502 | 503 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// After how many seconds it is worth to ask again.
fn retry_after(fault: &Fault) -> u64 {
    match fault.source.as_ref().and_then(|source| source.downcast_ref()) {
        Some(LeaseError::BreakersOpen { after, .. }) => after.as_secs() + 1,
        _ => 1,
    }
}

/// What an answer says.
#[derive(Default)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) detail: &'a str,
    pub(crate) request_id: &'a str,
    pub(crate) form: Form,
    pub(crate) close: bool,
    pub(crate) body: bool,
    /// What it answers for: guards have more to say.
    pub(crate) refusal: Option<&'a Fault>,
    /// What is told of the route's rates, in whole lines.
    pub(crate) quota: Option<&'a [u8]>,
    /// What its route puts into the heads of answers.
    pub(crate) edits: Option<&'a Edits>,
}

/// RFC 9457, written by hand: floods of refusals pay for it.
fn problem(answer: &Answer<'_>, title: &str) -> Vec<u8> {
    let mut problem = Vec::with_capacity(256);
    problem.extend_from_slice(b"{\"type\":\"about:blank\",\"title\":");
    push_json(title, &mut problem);
    problem.extend_from_slice(b",\"status\":");
    push_decimal(answer.status.into(), &mut problem);
    problem.extend_from_slice(b",\"detail\":");
    push_json(answer.detail, &mut problem);
    problem.extend_from_slice(b",\"request_id\":");
    push_json(answer.request_id, &mut problem);
    if let Some(violations) = answer.refusal.and_then(guard::violations) {
        problem.extend_from_slice(b",\"violations\":");
        problem.extend_from_slice(violations.to_string().as_bytes());
    }
    problem.extend_from_slice(b"}\n");
    problem
}

fn page(answer: &Answer<'_>, title: &str) -> String {
    let Answer { status, detail, request_id, .. } = answer;
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{status} {title}</title>\n\
         <h1>{title}</h1>\n<p>{}</p>\n<p><small>{status} · request {}</small></p>\n</html>\n",
        escaped(detail),
        escaped(request_id),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_by_trailers_that_no_text_breaks() {
        let mut out = Vec::new();
        let (status, form) = (503, Form::of_call(Some(b"application/grpc+proto")).unwrap());
        let detail = "100 %\r\nx: é";
        encode(
            &Answer {
                status,
                detail,
                edits: None,
                quota: None,
                refusal: None,
                request_id: "7",
                form,
                close: true,
                body: true,
            },
            &mut out,
        );
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("\r\nGrpc-Status: 14\r\n"),
            "{text}"
        );
        let message = "\r\nGrpc-Message: Service Unavailable: 100 %25%0D%0Ax: %C3%A9\r\n";
        assert!(text.contains(message) && text.ends_with("\r\nContent-Length: 0\r\n\r\n"), "{text}");
        assert_eq!(Form::of_call(Some(b"application/json")), None);
    }

    #[test]
    fn a_problem_is_json_whatever_it_says() {
        for text in ["plain", "", "\"\\\u{0}\n\u{1f}é\u{7f}", "é\"", "\\"] {
            let mut answer = Answer { status: 429, detail: text, ..Answer::default() };
            answer.request_id = text;
            let problem: serde_json::Value = serde_json::from_slice(&problem(&answer, text)).unwrap();
            let expected = serde_json::json!({
                "type": "about:blank", "title": text, "status": 429, "detail": text, "request_id": text,
            });
            assert_eq!(problem, expected);
        }
    }

    #[test]
    fn browsers_get_a_page_and_programs_a_problem() {
        for (accept, form) in [
            (None, Form::Problem),
            (Some("*/*"), Form::Problem),
            (Some("application/json"), Form::Problem),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), Form::Html),
            (Some("application/json, text/html"), Form::Problem),
        ] {
            assert_eq!(Form::of(accept.map(str::as_bytes)), form, "{accept:?}");
        }
    }
}
