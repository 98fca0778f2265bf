//! Who asks, and whether that is an operator.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use tieline_policy::approval::Answerer;
use tieline_policy::{AdminPermit, AdminSubject, Proved};
use tieline_tunnel::PersonToken;

use super::problem::Problem;
use crate::plane::Plane;

/// By which door a request came. Put there by the door itself; a request never says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Caller {
    /// By the unix socket, from a process of this user.
    Peer {
        /// The user id that the kernel vouches for.
        uid: u32,
    },
    /// By the network, from wherever: only the token proves anything.
    Network,
}

/// Who answers requests for approvals: an operator, or a person whom the config lets.
pub(crate) enum Answers {
    Operator { permit: AdminPermit, called: String },
    Person(Arc<Proved>),
}

impl Answers {
    pub(crate) fn as_answerer(&self) -> Answerer<'_> {
        match self {
            Answers::Operator { permit, called } => Answerer::Operator { permit, called },
            Answers::Person(proved) => Answerer::Person(proved),
        }
    }
}

impl FromRequestParts<Plane> for Answers {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, plane: &Plane) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().copied();
        let called = match caller {
            Some(Caller::Peer { uid }) => format!("operator uid {uid}"),
            Some(Caller::Network) | None => "an operator by the admin token".into(),
        };
        // At the socket it is the process that counts, and nothing that it says.
        let token = bearer(&parts.headers).filter(|_| !matches!(caller, Some(Caller::Peer { .. })));
        if let Some(token) = token.and_then(|token| PersonToken::parse(token).ok()) {
            let proved = plane.person(token).await;
            return proved
                .map(Answers::Person)
                .map_err(|error| Problem::new(StatusCode::UNAUTHORIZED, error.to_string()));
        }
        let permit = AdminPermit::from_request_parts(parts, plane).await?;
        Ok(Answers::Operator { permit, called })
    }
}

/// The one maker of permits here: a route that acts or tells something takes one as its argument.
impl FromRequestParts<Plane> for AdminPermit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, plane: &Plane) -> Result<Self, Problem> {
        let subject = match parts.extensions.get::<Caller>() {
            Some(Caller::Peer { uid }) => {
                AdminSubject::Peer { uid: *uid, ours: rustix::process::geteuid().as_raw() }
            }
            Some(Caller::Network) | None => {
                let proved = bearer(&parts.headers).is_some_and(|offered| plane.proves(offered));
                AdminSubject::Bearer { proved }
            }
        };
        AdminPermit::decide(subject)
            .map_err(|error| Problem::new(StatusCode::UNAUTHORIZED, error.to_string()))
    }
}

/// The token that a request offers. Two `Authorization` fields are none: which one is meant is nobody's to
/// guess.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (field, None) = (fields.next()?, fields.next()) else { return None };
    let (scheme, token) = field.to_str().ok()?.split_once(' ')?;
    // RFC 9110 §11.1: the scheme's case does not matter.
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
