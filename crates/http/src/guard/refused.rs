//! What a client is told of a request that its route's guards refuse.

use serde_json::{Value, json};
use tieline_base::Fault;
use tieline_base::text::push_decimal;
use tieline_openapi::{Part, Refusal, Violation};
use tieline_wire::http1::push_field;

use super::limits::Refused;

/// The status, if it was a guard that refused.
pub(crate) fn status(fault: &Fault) -> Option<u16> {
    let too_early = || source::<Refused>(fault).map(|refused| refused.status);
    refusal(fault).map(|refusal| refusal.status).or_else(too_early)
}

/// Whether it was a guard that refused: the connection may go on.
pub(crate) fn is_refusal(fault: &Fault) -> bool {
    status(fault).is_some()
}

/// Fields of the answer.
pub(crate) fn fields(fault: &Fault, out: &mut Vec<u8>) {
    if let Some(allow) = refusal(fault).and_then(|refusal| refusal.allow.as_ref()) {
        push_field("Allow", allow.as_bytes(), out);
    }
    if let Some(refused) = source::<Refused>(fault) {
        out.extend_from_slice(b"Retry-After: ");
        // Whole seconds (RFC 9110 §10.2.3), rounded up: who comes then is not too early again.
        push_decimal(refused.retry_after.as_secs() + 1, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// Each rule that is broken, for the problem's `violations`.
pub(crate) fn violations(fault: &Fault) -> Option<Value> {
    refusal(fault).map(|refusal| refusal.violations.iter().map(violation).collect())
}

fn refusal(fault: &Fault) -> Option<&Refusal> {
    source(fault)
}

fn source<T: std::error::Error + 'static>(fault: &Fault) -> Option<&T> {
    fault.source.as_ref()?.downcast_ref()
}

fn violation(violation: &Violation) -> Value {
    let Violation { part, name, rule, at, detail } = violation;
    let mut told = json!({ "in": part.as_str(), "rule": rule, "detail": detail });
    match part {
        Part::Body => told["pointer"] = name.as_str().into(),
        _ if name.is_empty() => {}
        _ => told["name"] = name.as_str().into(),
    }
    if !at.is_empty() {
        told["schema"] = format!("#{at}").into();
    }
    told
}
