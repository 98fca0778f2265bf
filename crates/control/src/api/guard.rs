//! What every request passes before its route, and every answer after it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::caller::Caller;
use super::problem::Problem;
use crate::plane::Plane;

/// Checks the host, bounds the time, and marks the answer as one for nobody else's eyes.
pub(super) async fn guard(State(plane): State<Plane>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&request, |name| plane.is_called(name)) {
        Some(problem) => problem.into_response(),
        None => match tokio::time::timeout(ANSWER_MAX, next.run(request)).await {
            Ok(response) => response,
            Err(_) => too_slow().into_response(),
        },
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// How long an answer's beginning may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

fn too_slow() -> Problem {
    let detail =
        "the answer took longer than 30 s; what was begun goes on, `tieline status` tells how it stands";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, detail)
}

/// Against DNS rebinding: a browser that a stranger's name led here says that name as the host. Health checks
/// tell nothing and are asked for by any name.
/// `listed` says which names the config adds.
fn refusal(request: &Request, listed: impl Fn(&str) -> bool) -> Option<Problem> {
    let by_socket = matches!(request.extensions().get::<Caller>(), Some(Caller::Peer { .. }));
    if by_socket || request.uri().path() == "/healthz" {
        return None;
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).unwrap_or_default();
    if hosts.next().is_none() && is_ours(host, listed) {
        return None;
    }
    let detail = format!(
        "\"{}\" is no host of this API; ask by its IP address or localhost, or list it in `admin.hosts`",
        host.escape_default()
    );
    Some(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail))
}

/// Whether `host`, as a Host field has it, is an IP address or localhost, which no DNS server can redirect,
/// or `listed`.
fn is_ours(host: &str, listed: impl Fn(&str) -> bool) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    v6.is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok())
        || name.parse::<Ipv4Addr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || listed(name)
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn a_name_that_is_listed_is_ours() {
        assert!(is_ours("tieline.test:7070", |name| name == "tieline.test"));
        assert!(!is_ours("other.test", |name| name == "tieline.test"));
    }

    #[test]
    fn only_addresses_and_localhost_are_our_names() {
        for ours in ["127.0.0.1:7070", "127.0.0.1", "[::1]:7070", "[::1]", "localhost:7070", "LocalHost"] {
            assert!(is_ours(ours, |_| false), "{ours}");
        }
        for other in
            ["", "evil.example", "evil.example:7070", "127.0.0.1.evil.example", "::1", "[::1", "1.2.3"]
        {
            assert!(!is_ours(other, |name| name == "tieline.test"), "{other}");
        }
    }
}
