//! Requests for approvals of far services, and their answers.

use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tieline_base::{Clock, Moment, parse_duration};
use tieline_policy::approval::{AnswerError, ApprovalId, Request, State as Standing, WORDS_MAX};
use utoipa::ToSchema;

use super::caller::Answers;
use super::problem::Problem;
use super::question::Body;
use crate::plane::Plane;

/// A request, as it stands.
#[derive(Serialize, ToSchema, Debug)]
#[schema(as = Approval)]
pub(super) struct ApprovalView {
    /// What it is called: six hexadecimal digits.
    id: String,
    /// `waiting`; `approved`; `denied`; `unanswered`, for its time was over; `over`, for that of its approval
    /// was; or `revoked`, for that was taken back.
    state: &'static str,
    /// Who asked.
    person: String,
    /// What for, as AGENT/SERVICE.
    service: String,
    /// Why, in the words of who asked; may be empty.
    why: String,
    /// Who may answer, beside operators, as the config has it; may be empty.
    ask: String,
    /// When it was asked, in seconds since 1970-01-01 UTC.
    asked_unix_seconds: f64,
    /// How long it has been since, in seconds.
    asked_seconds: f64,
    /// For how long it still waits, or holds, in seconds; null if it is over.
    left_seconds: Option<f64>,
    /// The longest that an approval of it may hold, in seconds.
    for_seconds: f64,
    /// Who answered; null if nobody has.
    answered_by: Option<String>,
    /// What was said with the answer; may be empty.
    note: String,
}

impl ApprovalView {
    fn of(request: Request, now: Moment) -> ApprovalView {
        let asked = Clock::wall_of(request.asked).duration_since(UNIX_EPOCH).unwrap_or_default();
        let standing: Standing = request.state_at(now);
        let (by, note) = request.answer.map_or((None, "".into()), |answer| (Some(answer.by), answer.note));
        ApprovalView {
            id: request.id.to_string(),
            state: standing.as_str(),
            person: request.person.into(),
            service: request.service.into(),
            why: request.why.into(),
            ask: request.terms.asks.into(),
            asked_unix_seconds: asked.as_secs_f64(),
            asked_seconds: now.since(request.asked).as_secs_f64(),
            left_seconds: standing.until().map(|until| until.since(now).as_secs_f64()),
            for_seconds: request.terms.holds.as_secs_f64(),
            answered_by: by.map(Into::into),
            note: note.into(),
        }
    }
}

/// How a request is approved.
#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Approve {
    /// For how long, like `30m`, at most as long as its route says; so long if left out.
    r#for: Option<String>,
    /// A few words for who asked, and for the log.
    #[serde(default)]
    note: String,
}

/// How a request is denied, or its approval taken back.
#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Deny {
    /// A few words for who asked, and for the log.
    #[serde(default)]
    note: String,
}

/// `GET /api/v1/approvals`
pub(super) async fn list(
    answers: Answers,
    State(plane): State<Plane>,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<ApprovalView>>, Problem> {
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        return Err(Problem::bad_request(format!("there are no parameters here, and \"{query}\" is one")));
    }
    let now = Clock::now();
    let all = plane.approvals(&answers).requests(&answers.as_answerer());
    Ok(Json(all.into_iter().map(|request| ApprovalView::of(request, now)).collect()))
}

/// `POST /api/v1/approvals/{id}/approve`
pub(super) async fn approve(
    answers: Answers,
    State(plane): State<Plane>,
    Path(id): Path<String>,
    Body(body): Body<Approve>,
) -> Result<Json<ApprovalView>, Problem> {
    let holds = body.r#for.as_deref().map(holds).transpose()?;
    let (id, note) = (named(&id)?, note(&body.note)?);
    let approved =
        plane.approvals(&answers).approve(id, &answers.as_answerer(), holds, note).map_err(refused)?;
    Ok(Json(ApprovalView::of(approved, Clock::now())))
}

/// `POST /api/v1/approvals/{id}/deny`
pub(super) async fn deny(
    answers: Answers,
    State(plane): State<Plane>,
    Path(id): Path<String>,
    Body(body): Body<Deny>,
) -> Result<Json<ApprovalView>, Problem> {
    let (id, note) = (named(&id)?, note(&body.note)?);
    let denied = plane.approvals(&answers).deny(id, &answers.as_answerer(), note).map_err(refused)?;
    Ok(Json(ApprovalView::of(denied, Clock::now())))
}

fn named(id: &str) -> Result<ApprovalId, Problem> {
    id.parse().map_err(Problem::not_found)
}

fn holds(text: &str) -> Result<Duration, Problem> {
    let wrong = |error| Problem::bad_request(format!("\"for\": {error}"));
    let holds = parse_duration(text).map_err(wrong)?;
    if holds.is_zero() {
        return Err(Problem::bad_request("\"for\" is no time at all; deny the request instead"));
    }
    Ok(holds)
}

fn note(text: &str) -> Result<&str, Problem> {
    if text.len() > WORDS_MAX {
        return Err(Problem::bad_request(format!("\"note\" is longer than {WORDS_MAX} bytes")));
    }
    Ok(text)
}

fn refused(error: AnswerError) -> Problem {
    let status = match error {
        AnswerError::Unknown(_) => StatusCode::NOT_FOUND,
        AnswerError::Own(_) => StatusCode::FORBIDDEN,
        AnswerError::Answered(..) => StatusCode::CONFLICT,
        AnswerError::TooLong { .. } => StatusCode::BAD_REQUEST,
    };
    Problem::new(status, error.to_string())
}
