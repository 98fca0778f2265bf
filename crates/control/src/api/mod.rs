//! The admin API: [`routes`] lists it, `caller` decides who may use it, `guard` stands before all of it.

mod agents;
mod approvals;
mod caller;
mod connections;
mod guard;
mod listeners;
mod problem;
mod question;
mod routes;
mod server;
mod shapes;
mod stream;
#[cfg(test)]
mod tests;
mod upstreams;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApiBuilder, Paths};

use crate::plane::Plane;

pub(crate) use caller::{Answers, Caller};

use problem::Problem;

/// The largest body that is read.
const BODY_BYTES_MAX: usize = 64 * 1_024;

/// The whole API over `plane`.
pub(crate) fn router(plane: Plane) -> Router {
    let mut router = Router::new();
    for entry in routes::table() {
        router = router.route(entry.path, entry.serve);
    }
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(plane.clone(), guard::guard))
        .with_state(plane)
}

async fn unknown_path(uri: Uri) -> Problem {
    Problem::not_found(format!("there is no {}; /api/v1/openapi.json lists what there is", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} cannot be asked for by {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// The OpenAPI document of this version, as it is served and as `docs/openapi.json` has it.
pub fn openapi() -> String {
    let (mut paths, mut components) = (Paths::new(), ComponentsBuilder::new());
    for entry in routes::table() {
        let (path, method) = (entry.path, entry.method.clone());
        let (operation, schemas) = entry.describe();
        paths.add_path_operation(path, vec![method], operation);
        components = components.schemas_from_iter(schemas);
    }
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let nothing_scoped: [&str; 0] = [];
    let document = OpenApiBuilder::new()
        .info(
            InfoBuilder::new().title("Tieline admin API").version("1").description(Some(DESCRIPTION)).build(),
        )
        .paths(paths)
        .components(Some(components.security_scheme("token", token).build()))
        .security(Some([SecurityRequirement::new("token", nothing_scoped)]))
        .build();
    // A document of texts and lists has a JSON form.
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

const DESCRIPTION: &str = "Every live connection, and the orders that operators give. By the network it \
                           needs the token in `<data>/admin.token`; by the unix socket `<data>/admin.sock` \
                           the server's own user or root.";
