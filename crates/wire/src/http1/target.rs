//! What a request is for (RFC 9112 §3.2).

use super::authority::host_and_port;
use super::bytes::{PATH_SPECIAL, class_of, is_path_class, is_query};
use super::{HttpError, Method};

/// The target of a request. The path is as it was written; [`Path`](super::Path) says whether it is safe to
/// route by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Target<'b> {
    /// Begins with `/`, or is `*`.
    pub path: &'b str,
    /// What follows the first `?`.
    pub query: Option<&'b str>,
    /// Of the absolute form, which proxies are asked in.
    pub scheme: Option<Scheme>,
    /// Likewise; it counts instead of `Host`.
    pub authority: Option<&'b str>,
    raw: &'b str,
    plain: bool,
}

/// How a target of the absolute form wants to be reached. The listener decides, whatever this says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl<'b> Target<'b> {
    /// As it stood in the request line.
    pub const fn raw(&self) -> &'b str {
        self.raw
    }

    /// Whether the path has no byte that could make two servers read it differently: it is safe, and its own
    /// match form.
    pub const fn is_plain(&self) -> bool {
        self.plain
    }

    /// A target of the origin form whose bytes were looked at.
    pub(super) const fn of_origin(path: &'b str, query: Option<&'b str>, raw: &'b str, plain: bool) -> Self {
        Self { path, query, scheme: None, authority: None, raw, plain }
    }

    /// Writes what an origin server is asked for: path and query.
    pub fn push(&self, out: &mut Vec<u8>) {
        if self.authority.is_none() {
            return out.extend_from_slice(self.raw.as_bytes());
        }
        out.extend_from_slice(self.path.as_bytes());
        if let Some(query) = self.query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
    }

    pub(super) fn parse(raw: &'b str, method: &Method<'_>) -> Result<Self, HttpError> {
        match raw.as_bytes().first() {
            Some(b'/') => Self::origin(raw, raw),
            Some(b'*') if raw.len() == 1 && *method == Method::Options => {
                Ok(Self::of_origin(raw, None, raw, true))
            }
            _ => Self::absolute(raw, method),
        }
    }

    /// `target` is the part of `raw` from the path on.
    fn origin(target: &'b str, raw: &'b str) -> Result<Self, HttpError> {
        let end = target.bytes().position(|byte| !is_path_class(class_of(byte)));
        let (path, query) = match end {
            None => (target, None),
            Some(end) => {
                let (path, query) = target.split_at_checked(end).ok_or(HttpError::Target)?;
                let query = query.strip_prefix('?').filter(|query| is_query(query.as_bytes()));
                (path, Some(query.ok_or(HttpError::Target)?))
            }
        };
        let plain = !(0..path.len()).any(|at| needs_a_look(path.as_bytes(), at));
        Ok(Self::of_origin(path, query, raw, plain))
    }

    fn absolute(raw: &'b str, method: &Method<'_>) -> Result<Self, HttpError> {
        let (scheme, rest) = raw.split_once("://").ok_or(HttpError::Target)?;
        let scheme = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
            _ if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            _ => return Err(HttpError::Target),
        };
        let end = rest.bytes().position(|byte| byte == b'/' || byte == b'?').unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let authority = host_and_port(authority.as_bytes()).ok_or(HttpError::HostInvalid)?;
        let mut parsed = Self::origin(target, raw)?;
        if parsed.path.is_empty() {
            // RFC 9112 §3.2.1 and §3.2.4: what an empty path is called on the way to the origin.
            let whole_server = *method == Method::Options && parsed.query.is_none();
            parsed.path = if whole_server { "*" } else { "/" };
        }
        Ok(Self { scheme: Some(scheme), authority: Some(authority), ..parsed })
    }
}

/// Whether two servers could read the byte of `path` at `at` differently. A dot begins a segment of dots, or
/// it is a letter as any other.
#[inline]
pub(super) fn needs_a_look(path: &[u8], at: usize) -> bool {
    class_of(path[at]) & PATH_SPECIAL != 0 && (path[at] != b'.' || at == 0 || path[at - 1] == b'/')
}
