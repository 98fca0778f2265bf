//! Why a client gets no server.

use std::{fmt, io};

use tieline_base::{Fault, Reason, Stage, Whose};
use tieline_wire::postgres::backend::{Notice, push_error};

use crate::ask::AskError;
use crate::errors;
use crate::login::Line;
use crate::login::server::LogInError;
use crate::site::Target;
use crate::talk::server_gone;

/// Why there is no server.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// A fault of the road.
    Fault(Fault),
    /// A server said so: the body of its ErrorResponse.
    Said(Box<[u8]>),
    /// The client, or somebody with its key, wants it no more.
    Cancelled,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Fault(fault) => write!(f, "{fault}"),
            Refusal::Said(body) => {
                let said = Notice::read(body).and_then(|notice| notice.message).unwrap_or(b"it is refused");
                write!(f, "{}", String::from_utf8_lossy(said))
            }
            Refusal::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Refusal::Fault(fault)
    }
}

impl From<AskError> for Refusal {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Said(body) => Refusal::Said(body),
            AskError::Io(error) => Refusal::Fault(server_gone(error)),
        }
    }
}

impl Refusal {
    /// Whether it may be otherwise in a moment.
    pub(crate) fn passes(&self, target: &Target) -> bool {
        match self {
            // Where there is one server only, no other can do better.
            Refusal::Fault(fault) if is_ours(fault) => {
                target.route.upstream.as_ref().is_some_and(|upstream| upstream.endpoints().len() > 1)
            }
            Refusal::Fault(fault) => {
                matches!(fault.reason, Reason::Unreachable | Reason::TimeoutConnect | Reason::UpstreamReset)
            }
            Refusal::Said(body) => {
                let code = Notice::read(body).and_then(|notice| notice.code);
                // It starts, or has no room just now.
                matches!(code, Some(b"57P01" | b"57P02" | b"57P03" | b"53300"))
            }
            Refusal::Cancelled => false,
        }
    }

    /// Whether the server has no room for one connection more (SQLSTATE 53300).
    pub(crate) fn is_for_want_of_room(&self) -> bool {
        let Refusal::Said(body) = self else { return false };
        Notice::read(body).and_then(|notice| notice.code) == Some(b"53300")
    }

    /// What the server said, if it said anything.
    pub(crate) fn words(self) -> Option<Box<[u8]>> {
        match self {
            Refusal::Said(body) => Some(body),
            Refusal::Fault(_) | Refusal::Cancelled => None,
        }
    }

    /// What is told where the time ran out: what a server `said` before, rather than that.
    pub(crate) fn or_said(self, said: Option<Box<[u8]>>) -> Self {
        match (self, said) {
            (Refusal::Fault(fault), Some(said))
                if matches!(fault.reason, Reason::TimeoutAcquire | Reason::TimeoutConnect) =>
            {
                Refusal::Said(said)
            }
            (refusal, _) => refusal,
        }
    }

    /// Tells a client at `line` that it cannot log in after all.
    pub(crate) async fn tell(self, line: &mut Line) -> Fault {
        let mut out = Vec::new();
        let fault = match self {
            Refusal::Fault(fault) => {
                errors::push(&mut out, &fault, true);
                fault
            }
            Refusal::Said(body) => {
                push_said(&mut out, &body, b"FATAL");
                let fault = Fault::new(Stage::Acquire, Whose::Upstream, Reason::Unreachable);
                fault.because(LogInError::Refused(body))
            }
            Refusal::Cancelled => Fault::new(Stage::Acquire, Whose::Client, Reason::ClientClosed),
        };
        // Whoever does not listen is not told.
        let _ = line.write(&out).await;
        fault
    }
}

/// Appends a server's error, as grave as it is here.
pub(crate) fn push_said(out: &mut Vec<u8>, body: &[u8], severity: &[u8]) {
    let said = Notice::read(body).unwrap_or_default();
    push_error(out, &Notice { severity: Some(severity), ..said });
}

/// Whether we and a server do not fit together, as it is configured.
fn is_ours(fault: &Fault) -> bool {
    match fault.source.as_deref().and_then(|source| source.downcast_ref()) {
        Some(LogInError::Credential(_) | LogInError::Scram(_)) => true,
        // What TLS says of a certificate.
        Some(LogInError::Io(error)) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// Whether the client has nothing to hope for.
pub(crate) fn is_final(fault: &Fault) -> bool {
    fault.whose == Whose::Client
        || matches!(fault.reason, Reason::RefusedNoRoute | Reason::RefusedSchedule | Reason::Internal)
}
