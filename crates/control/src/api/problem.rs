//! What went wrong, as RFC 9457 says it: `application/problem+json`.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::acts::ActError;

/// Why a request was not fulfilled.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema, Debug)]
pub struct Problem {
    /// The HTTP status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What happened, to what, and what to do: one line.
    detail: String,
    /// Every single fault, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

/// RFC 9457 §6.1.
pub(super) const CONTENT_TYPE: &str = "application/problem+json";

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        // Without a "type", RFC 9457 §4.2.1 wants the title to be the status phrase.
        let title = status.canonical_reason().unwrap_or("Error").into();
        Self { title, status: status.as_u16(), detail: detail.into(), errors: Vec::new() }
    }

    pub(super) fn bad_request(detail: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail.to_string())
    }

    pub(super) fn not_found(detail: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail.to_string())
    }

    /// With every single fault of the same kind.
    #[must_use]
    pub(super) fn with_errors(self, errors: Vec<String>) -> Self {
        Self { errors, ..self }
    }
}

impl From<ActError> for Problem {
    fn from(error: ActError) -> Self {
        Problem::not_found(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], Json(self)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §11.6.1: a 401 says how to do better.
            let bearer = header::HeaderValue::from_static("Bearer realm=\"tieline\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        let problem = header::HeaderValue::from_static(CONTENT_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, problem);
        response
    }
}
