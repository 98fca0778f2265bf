//! How rows and stories look, for the OpenAPI document: the registry makes them, and knows nothing of
//! documents. Tests hold these shapes to what is really sent.
#![allow(dead_code)] // read as descriptions only

use utoipa::ToSchema;

/// A page of the live table.
#[derive(ToSchema)]
#[schema(as = ConnectionsPage)]
pub(super) struct PageShape {
    /// The rows.
    connections: Vec<RowShape>,
    /// Where the next page begins; null on the last one.
    next: Option<String>,
    /// How many match, on all pages.
    total: usize,
}

/// One line of the live table.
#[derive(ToSchema)]
#[schema(as = Row)]
pub(super) struct RowShape {
    /// The connection's id.
    id: u64,
    /// The connection that carries it, if it is part of one, as a stream of HTTP/2 is.
    #[schema(nullable = false)]
    parent: Option<u64>,
    /// The listener that accepted it.
    listener: String,
    /// What its bytes mean.
    protocol: String,
    /// Who speaks: whom a trusted forwarder or PROXY header names, else the socket's peer.
    client: String,
    /// The socket's peer, where somebody else is named as the client.
    #[schema(nullable = false)]
    peer: Option<String>,
    /// Who was proved; null for nobody.
    identity: Option<String>,
    /// The server name that its TLS hello asks for.
    sni: Option<String>,
    /// What carries it, where its listener takes more than one thing: quic, tls or websocket.
    #[schema(nullable = false)]
    carrier: Option<String>,
    /// Its route.
    route: Option<String>,
    /// Its upstream.
    upstream: Option<String>,
    /// Its endpoint.
    endpoint: Option<String>,
    /// Where it stands: accept, admit, settle, identify, route, authorize, acquire, relay or release.
    stage: String,
    /// How long it has stood there, in seconds.
    stage_seconds: f64,
    /// How long it has lived, in seconds.
    age_seconds: f64,
    /// How long no byte has moved, in seconds.
    idle_seconds: f64,
    /// Bytes from the client.
    bytes_up: u64,
    /// Bytes to the client.
    bytes_down: u64,
    /// The config in force when it was accepted.
    generation: u32,
    /// The worker that serves it.
    worker: u16,
    /// Why it ended, if it has.
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// The whole story of one connection.
#[derive(ToSchema)]
#[schema(as = Story)]
pub(super) struct StoryShape {
    /// The row, as the list shows it.
    #[serde(flatten)]
    row: RowShape,
    /// When it was accepted, in seconds since 1970-01-01 UTC.
    opened_unix_seconds: f64,
    /// The road it walked, in order of time.
    road: Vec<StageMarkShape>,
    /// What lay beneath its end.
    detail: Option<String>,
    /// Its latest finished exchanges, the first one first, where it carries more than one; left out if there
    /// is none.
    #[schema(nullable = false)]
    exchanges: Option<Vec<ExchangeShape>>,
}

/// One finished exchange.
#[derive(ToSchema)]
#[schema(as = Exchange)]
pub(super) struct ExchangeShape {
    /// Which one of its connection it was, from 1.
    number: u32,
    /// The id of the row of its own that it had inside the connection, if it had one.
    #[schema(nullable = false)]
    stream: Option<u64>,
    /// For whom it was asked, where a trusted forwarder named somebody else than the connection's peer.
    #[schema(nullable = false)]
    client: Option<String>,
    /// When it began, in seconds since the connection was accepted.
    at_seconds: f64,
    /// How long it took.
    duration_seconds: f64,
    /// What was asked.
    asked: String,
    /// The code that it was answered with.
    status: Option<u16>,
    /// How it ended.
    reason: String,
    /// What lay beneath.
    detail: Option<String>,
    /// The route it took.
    route: Option<String>,
    /// The endpoint that answered, or was asked last.
    endpoint: Option<String>,
    /// How long it waited for its upstream connection.
    acquire_seconds: Option<f64>,
    /// How long the upstream took to begin its answer.
    first_byte_seconds: Option<f64>,
    /// Bytes from the client.
    bytes_up: u64,
    /// Bytes to the client.
    bytes_down: u64,
    /// What happened on the way out of the ordinary; left out if nothing did.
    #[schema(nullable = false)]
    notes: Option<Vec<String>>,
}

/// One station of a connection's story.
#[derive(ToSchema)]
#[schema(as = StageMark)]
pub(super) struct StageMarkShape {
    /// The stage, or `note` for what happened inside one.
    stage: String,
    /// When it was entered, in seconds since the connection was accepted.
    at_seconds: f64,
    /// What was decided there, and by which line of the config.
    #[schema(nullable = false)]
    detail: Option<String>,
}
