//! What a client is told of a fault, in the words and codes of a server.

use tieline_base::{Fault, Reason};
use tieline_pool::LeaseError;
use tieline_wire::postgres::BadFrame;
use tieline_wire::postgres::backend::{Notice, push_error};

use crate::fair;
use crate::replication::NotReplicated;

/// Appends what `fault` is to a client; `fatal` if its connection ends with it.
pub(crate) fn push(out: &mut Vec<u8>, fault: &Fault, fatal: bool) {
    let (code, message) = words(fault);
    // A server closes without a word where it cannot tell messages apart any more.
    if fault.source.as_ref().is_some_and(|source| source.is::<BadFrame>()) {
        return;
    }
    let severity: &[u8] = if fatal { b"FATAL" } else { b"ERROR" };
    let detail = (fault.reason != Reason::ProtocolError).then(|| fault.to_string());
    push_error(
        out,
        &Notice {
            severity: Some(severity),
            code: Some(code.as_bytes()),
            message: Some(message.as_bytes()),
            detail: detail.as_deref().map(str::as_bytes),
            hint: None,
        },
    );
}

/// The SQLSTATE, and the sentence.
fn words(fault: &Fault) -> (&'static str, String) {
    if let Some(no) = fault.source.as_ref().and_then(|source| source.downcast_ref::<NotReplicated>()) {
        return ("28000", no.to_string());
    }
    let own = || fault.source.as_ref().map_or_else(|| fault.to_string(), ToString::to_string);
    let waited = || fair::waited(fault.source.as_ref()?.downcast_ref::<LeaseError>()?);
    let (code, message) = match fault.reason {
        Reason::TimeoutAcquire if let Some(waited) = waited() => return ("53300", waited),
        Reason::TimeoutAcquire => ("53300", "query_wait_timeout: no server became free in time"),
        // Not the code of those who waited: whoever is not even let into the line need not ask at once again.
        Reason::LimitQueue => ("53400", "too many clients wait for a server already (pool.queue)"),
        Reason::LimitShed | Reason::LimitConcurrent | Reason::LimitRate => {
            ("53300", "more is asked of the servers than they can do")
        }
        Reason::LimitPerUser | Reason::LimitPerDatabase => return ("53300", own()),
        Reason::LimitUnread => ("53400", "more was said in the channels that it listens to than it read"),
        Reason::Exhausted => ("53000", "this server lacks resources"),
        Reason::RefusedNoRoute | Reason::RefusedPolicy => ("3D000", "no such database, or not for you"),
        Reason::RefusedSchedule => ("57P03", "not open at this time"),
        Reason::Schedule | Reason::Killed | Reason::Revoked | Reason::Drained | Reason::MaxAge => {
            ("57P01", "terminating connection due to administrator command")
        }
        Reason::RefusedDraining => ("57P03", "the server is shutting down"),
        Reason::Unreachable | Reason::TimeoutConnect | Reason::RefusedBreaker => {
            ("08006", "no server could be reached")
        }
        Reason::UpstreamReset | Reason::UpstreamClosed => ("08006", "the server broke off"),
        Reason::UpstreamProtocolError => ("08P01", "the server does not keep to the protocol"),
        Reason::TimeoutQuery => ("57014", "canceling statement due to query timeout"),
        Reason::TimeoutTransaction => ("25P04", "terminating connection due to transaction timeout"),
        Reason::TimeoutIdleInTransaction => {
            ("25P03", "terminating connection due to idle-in-transaction timeout")
        }
        Reason::TimeoutPinned => {
            ("57P05", "terminating connection due to silence while it kept its server from others")
        }
        Reason::Idle => ("57P05", "terminating connection due to idle-session timeout"),
        Reason::ProtocolError => return ("08P01", own()),
        _ => ("XX000", "internal error"),
    };
    (code, message.to_owned())
}
