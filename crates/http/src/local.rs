//! Answers that a route gives by itself: redirects, and what its config says.

use tieline_base::text::push_decimal;
use tieline_wire::http1::{encode_status_line, push_field};

use crate::answer::title;
use crate::buffer::Buffer;
use crate::client::Client;
use crate::plan::Plan;
use crate::site::{Action, Part, Target};
use crate::story::Story;

/// A whole answer.
pub(crate) struct Local {
    pub(crate) status: u16,
    pub(crate) bytes: Vec<u8>,
}

/// The answer of `target`'s own; `None` if it forwards.
pub(crate) fn answer(
    target: &Target,
    plan: &mut Plan,
    story: &Story,
    client: &Client,
    input: &mut Buffer,
) -> Option<Local> {
    if matches!(target.action, Action::Forward) {
        return None;
    }
    plan.pass_over(client, input);
    let mut bytes = Vec::with_capacity(256);
    let edits = target.edits();
    let (status, body, media_type) = match &target.action {
        Action::Forward => return None,
        Action::Redirect(parts, status) => {
            let to = location(parts, plan);
            encode_status_line(*status, title(*status), &mut bytes);
            push_field("Location", to.as_bytes(), &mut bytes);
            (*status, format!("{to}\n"), "text/plain; charset=utf-8")
        }
        Action::Respond { status, body, media_type } => {
            encode_status_line(*status, title(*status), &mut bytes);
            (*status, body.clone(), media_type.as_str())
        }
    };
    // RFC 9110 §15.3.5 and §15.4.5: these have no body and say nothing of one.
    let bodyless = matches!(status, 204 | 304);
    if !bodyless {
        if edits.is_none_or(|edits| edits.keeps("content-type")) {
            push_field("Content-Type", media_type.as_bytes(), &mut bytes);
        }
        bytes.extend_from_slice(b"Content-Length: ");
        push_decimal(body.len() as u64, &mut bytes);
        bytes.extend_from_slice(b"\r\n");
    }
    push_field("X-Request-Id", &story.request_id(), &mut bytes);
    bytes.extend_from_slice(plan.quota.as_deref().unwrap_or_default());
    if let Some(edits) = edits {
        edits.write(&mut bytes);
    }
    if !plan.stays_open() {
        push_field("Connection", b"close", &mut bytes);
    }
    bytes.extend_from_slice(b"\r\n");
    if !bodyless && !story.bodyless {
        bytes.extend_from_slice(body.as_bytes());
    }
    Some(Local { status, bytes })
}

fn location(parts: &[Part], plan: &Plan) -> String {
    let (host, path, query) = match plan.asked.as_deref() {
        Some((host, path, query)) => (host.as_str(), path.as_str(), query.as_str()),
        None => ("", "/", ""),
    };
    let text = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Host => host.to_owned(),
        Part::Path => path.to_owned(),
        Part::Query => query.to_owned(),
    };
    parts.iter().map(text).collect()
}
