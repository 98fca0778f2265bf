//! Answers of our own: what went wrong, in the form that the client asked for, and nothing of what lies
//! behind.

use tieline_base::{Fault, Reason};
use tieline_pool::LeaseError;
use tieline_wire::http1::{HttpError, push_decimal, push_field};

use crate::guard;

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
        let accept = accept.unwrap_or_default();
        let at = |word: &[u8]| accept.windows(word.len()).position(|part| part.eq_ignore_ascii_case(word));
        match (at(b"text/html"), at(b"json")) {
            (Some(html), Some(json)) if html < json => Form::Html,
            (Some(_), None) => Form::Html,
            _ => Form::Problem,
        }
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
        Reason::TimeoutRequestHead | Reason::TimeoutBodyGap => 408,
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
        Form::Html => ("text/html; charset=utf-8", page(answer, title)),
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
    if answer.close {
        push_field("Connection", b"close", out);
    }
    out.extend_from_slice(b"\r\n");
    if answer.body {
        out.extend_from_slice(body.as_bytes());
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
            b'%' | ..=0x1f | 0x7f.. => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            byte => out.push(byte),
        }
    }
    out.extend_from_slice(b"\r\n");
    if !answer.request_id.is_empty() {
        push_field("X-Request-Id", answer.request_id.as_bytes(), out);
    }
    push_field("Content-Length", b"0", out);
    out.extend_from_slice(b"\r\n");
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
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) detail: &'a str,
    pub(crate) request_id: &'a str,
    pub(crate) form: Form,
    pub(crate) close: bool,
    pub(crate) body: bool,
    /// What it answers for: guards have more to say.
    pub(crate) refusal: Option<&'a Fault>,
}

fn problem(answer: &Answer<'_>, title: &str) -> String {
    let Answer { status, detail, request_id, .. } = answer;
    let mut problem = serde_json::json!({
        "type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": request_id,
    });
    if let Some(violations) = answer.refusal.and_then(guard::violations) {
        problem["violations"] = violations;
    }
    problem.to_string() + "\n"
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
            &Answer { status, detail, refusal: None, request_id: "7", form, close: true, body: true },
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
