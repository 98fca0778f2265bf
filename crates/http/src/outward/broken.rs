//! How a stream ended that did not end well.

use std::fmt;
use std::io;

use h2::Reason;

/// Why nothing more comes of a stream: kept, because whoever writes and whoever reads both ask.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    kind: io::ErrorKind,
    why: String,
    /// Whether the endpoint has done nothing with the request, so that it may be sent again whatever it asks
    /// for (RFC 9113 §8.7).
    pub(crate) unprocessed: bool,
}

impl Broken {
    /// `spared` says that the endpoint has promised not to have processed the stream.
    pub(super) fn of(error: &h2::Error, spared: bool) -> Broken {
        let refused = error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
        let kind = match error {
            _ if error.is_io() => error.get_io().map_or(io::ErrorKind::ConnectionReset, io::Error::kind),
            // What the endpoint sent is against the rules.
            _ if error.is_library() => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::ConnectionReset,
        };
        let why = match error.reason() {
            Some(_) if refused => "the endpoint refused the stream".to_owned(),
            Some(_) if spared => format!("the endpoint closes the connection before this stream: {error}"),
            Some(reason) if error.is_reset() && error.is_remote() => {
                format!("the endpoint reset the stream: {reason:?}")
            }
            _ => format!("HTTP/2: {error}"),
        };
        Broken { kind, why, unprocessed: refused || spared }
    }

    /// Before anything was sent.
    pub(super) fn unsent(why: impl fmt::Display) -> Broken {
        Broken { kind: io::ErrorKind::ConnectionReset, why: why.to_string(), unprocessed: true }
    }

    /// Of `kind`, for a reason of ours.
    pub(super) fn ours(kind: io::ErrorKind, why: impl fmt::Display) -> Broken {
        Broken { kind, why: why.to_string(), unprocessed: false }
    }

    pub(super) fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.clone())
    }

    /// What broke the stream that `error` is of, if it is of one.
    pub(crate) fn within(error: &io::Error) -> Option<&Broken> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Broken {}
