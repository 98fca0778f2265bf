//! Every route of the API with its description, in one table: the router and the OpenAPI document are both
//! made of it, so that neither can have what the other lacks.

use axum::handler::Handler;
use axum::routing::{MethodRouter, get as on_get, post as on_post};
use utoipa::ToSchema;
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, Ref, Schema};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, RefOr, Required, ResponseBuilder};

use super::agents::{self, AgentView};
use super::approvals::{self, ApprovalView, Approve, Deny};
use super::connections;
use super::listeners::{self, ListenerStatus, RouteStatus};
use super::problem::{self, Problem};
use super::question::{Order, Reasons};
use super::server::{self, ServerStatus, Stopping};
use super::shapes::{PageShape, StoryShape};
use super::stream;
use super::upstreams::{self, PoolView, UpstreamView};
use crate::acts::Acted;
use crate::metrics;
use crate::plane::{Plane, Reloaded};

/// All routes.
pub(super) fn table() -> Vec<Entry> {
    [data_plane(), far_sites(), process()].into_iter().flatten().collect()
}

fn data_plane() -> Vec<Entry> {
    vec![
        get("/api/v1/connections", "List connections", connections::list)
            .query(&PAGE)
            .answers::<PageShape>(200),
        get("/api/v1/connections/{id}", "Tell one connection's whole story", connections::show)
            .answers::<StoryShape>(200)
            .fails(&[404]),
        post("/api/v1/connections/kill", "End connections now", connections::kill)
            .body::<Order>()
            .answers::<Acted>(200)
            .fails(&[400]),
        post(
            "/api/v1/connections/drain",
            "End connections when their time to drain is over",
            connections::drain,
        )
        .body::<Order>()
        .answers::<Acted>(200)
        .fails(&[400]),
        get("/api/v1/listeners", "List listeners", listeners::listeners).lists::<ListenerStatus>(),
        post(
            "/api/v1/listeners/{name}/drain",
            "Let nobody in any more, and drain who is in",
            listeners::drain,
        )
        .body::<Reasons>()
        .answers::<Acted>(200)
        .fails(&[404]),
        post("/api/v1/listeners/{name}/enable", "Let connections in again", listeners::enable)
            .answers::<ListenerStatus>(200)
            .fails(&[404]),
        get("/api/v1/routes", "List routes", listeners::routes).lists::<RouteStatus>(),
        get("/api/v1/upstreams", "List upstreams with their endpoints", upstreams::upstreams)
            .lists::<UpstreamView>(),
        post(
            "/api/v1/upstreams/{name}/endpoints/{address}/drain",
            "Take an endpoint out of use, and drain the connections to it",
            upstreams::drain,
        )
        .body::<Reasons>()
        .answers::<Acted>(200)
        .fails(&[404]),
        post(
            "/api/v1/upstreams/{name}/endpoints/{address}/enable",
            "Take an endpoint into use again",
            upstreams::enable,
        )
        .answers::<UpstreamView>(200)
        .fails(&[404]),
        get("/api/v1/pools", "List pools", upstreams::pools).lists::<PoolView>(),
    ]
}

fn far_sites() -> Vec<Entry> {
    vec![
        get("/api/v1/agents", "List agents with their links", agents::agents).lists::<AgentView>(),
        get("/api/v1/approvals", "List requests for approvals of far services", approvals::list)
            .lists::<ApprovalView>(),
        post("/api/v1/approvals/{id}/approve", "Approve a request that waits", approvals::approve)
            .body::<Approve>()
            .answers::<ApprovalView>(200)
            .fails(&[400, 403, 404, 409]),
        post(
            "/api/v1/approvals/{id}/deny",
            "Deny a request that waits, or take its approval back: what was opened by it ends now",
            approvals::deny,
        )
        .body::<Deny>()
        .answers::<ApprovalView>(200)
        .fails(&[400, 404, 409]),
    ]
}

fn process() -> Vec<Entry> {
    vec![
        get("/api/v1/status", "Tell how the server stands", server::status).answers::<ServerStatus>(200),
        post("/api/v1/reload", "Obey the config file as it is now", server::reload)
            .answers::<Reloaded>(200)
            .fails(&[422]),
        post("/api/v1/stop", "Drain and stop; asked again, stop sooner", server::stop)
            .answers::<Stopping>(202),
        get("/api/v1/events", "Follow what happens: server-sent events", stream::events)
            .answers_text("text/event-stream"),
        get("/api/v1/openapi.json", "This document", server::openapi).answers_text("application/json"),
        get("/metrics", "Every metric, for Prometheus", server::metrics).answers_text(metrics::CONTENT_TYPE),
        get("/readyz", "Whether the server takes connections", server::ready)
            .answers_text("text/plain; charset=utf-8")
            .fails(&[503]),
        get("/healthz", "Whether the process serves at all", server::health)
            .answers_text("text/plain; charset=utf-8")
            .for_everybody(),
    ]
}

/// What a page of connections can be asked for by.
const PAGE: [(&str, &str); 4] = [
    ("filter", "Conditions like `listener=web age>1h`; several, in one or in several parameters, mean *and*"),
    ("limit", "How many rows at most: 1 to 100000; 1000 if left out"),
    ("cursor", "The `next` of the page before"),
    ("finished", "`true` lists the connections that have ended and are remembered, the latest first"),
];

/// One route.
pub(super) struct Entry {
    pub(super) method: HttpMethod,
    pub(super) path: &'static str,
    pub(super) serve: MethodRouter<Plane>,
    /// Whether it is answered without a permit.
    pub(super) open: bool,
    schemas: Schemas,
    operation: OperationBuilder,
}

/// Schemas by their names.
type Schemas = Vec<(String, RefOr<Schema>)>;

fn get<H: Handler<T, Plane>, T: 'static>(path: &'static str, summary: &str, handler: H) -> Entry {
    Entry::new(HttpMethod::Get, path, summary, on_get(handler))
}

fn post<H: Handler<T, Plane>, T: 'static>(path: &'static str, summary: &str, handler: H) -> Entry {
    Entry::new(HttpMethod::Post, path, summary, on_post(handler))
}

impl Entry {
    fn new(method: HttpMethod, path: &'static str, summary: &str, serve: MethodRouter<Plane>) -> Self {
        let verb = if method == HttpMethod::Get { "get" } else { "post" };
        let words = path.trim_start_matches("/api/v1").split(['/', '.']).filter(|word| !word.is_empty());
        let names = words.clone().map(|word| word.trim_matches(['{', '}']));
        let id = std::iter::once(verb).chain(names).collect::<Vec<_>>().join("_");
        let mut operation = OperationBuilder::new().summary(Some(summary)).operation_id(Some(id));
        for name in words.filter_map(|word| word.strip_prefix('{')?.strip_suffix('}')) {
            let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
            operation = operation.parameter(parameter.required(Required::True).schema(Some(text())));
        }
        Self { method, path, serve, open: false, schemas: Vec::new(), operation }
    }

    fn query(mut self, parameters: &[(&str, &str)]) -> Self {
        for (name, description) in parameters {
            let parameter = ParameterBuilder::new().name(*name).parameter_in(ParameterIn::Query);
            let parameter =
                parameter.required(Required::False).description(Some(*description)).schema(Some(text()));
            self.operation = self.operation.parameter(parameter);
        }
        self.fails(&[400])
    }

    fn body<T: ToSchema>(mut self) -> Self {
        let content = Content::new(Some(self.refer::<T>()));
        let body = RequestBodyBuilder::new().content("application/json", content).build();
        self.operation = self.operation.request_body(Some(body));
        self
    }

    fn answers<T: ToSchema>(mut self, status: u16) -> Self {
        let schema = self.refer::<T>();
        self.respond(status, "application/json", Content::new(Some(schema)))
    }

    fn lists<T: ToSchema>(mut self) -> Self {
        let schema = ArrayBuilder::new().items(self.refer::<T>()).build();
        self.respond(200, "application/json", Content::new(Some(Schema::Array(schema))))
    }

    fn answers_text(self, content_type: &str) -> Self {
        self.respond(200, content_type, Content::new(Some(text())))
    }

    fn fails(mut self, statuses: &[u16]) -> Self {
        for status in statuses {
            let schema = self.refer::<Problem>();
            self = self.respond(*status, problem::CONTENT_TYPE, Content::new(Some(schema)));
        }
        self
    }

    fn for_everybody(self) -> Self {
        Self { open: true, ..self }
    }

    fn respond(mut self, status: u16, content_type: &str, content: Content) -> Self {
        let meaning =
            axum::http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let response = ResponseBuilder::new().description(meaning.unwrap_or("Answer"));
        self.operation = self.operation.response(status.to_string(), response.content(content_type, content));
        self
    }

    fn refer<T: ToSchema>(&mut self) -> Ref {
        T::schemas(&mut self.schemas);
        self.schemas.push((T::name().into_owned(), T::schema()));
        Ref::from_schema_name(T::name())
    }

    /// Its description, and the schemas that it refers to.
    pub(super) fn describe(self) -> (Operation, Schemas) {
        if self.open {
            let nobody: [SecurityRequirement; 0] = [];
            return (self.operation.securities(Some(nobody)).build(), self.schemas);
        }
        let entry = self.fails(&[401]);
        (entry.operation.build(), entry.schemas)
    }
}

fn text() -> RefOr<Schema> {
    use utoipa::openapi::schema::{ObjectBuilder, Type};
    ObjectBuilder::new().schema_type(Type::String).into()
}
