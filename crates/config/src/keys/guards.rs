//! What stands between a route and its upstream: interfaces.

use crate::key::{Block, Kind, key};
use crate::words::{ApiMode, UnknownQuery};

pub(crate) static API: Block = Block {
    path: "listener.*.route.api",
    meaning: "The OpenAPI document that requests must keep to. All of it is in one file, which is read again \
              at every reload; nothing is fetched.",
    keys: &[
        key("document", Kind::Path)
            .means("The file: OpenAPI 3.0 or 3.1, in YAML or JSON, of 8 MiB at most.")
            .example("orders.openapi.yaml"),
        key("mode", Kind::Words(ApiMode::WORDS))
            .or("enforce")
            .means("What becomes of a request that does not keep to the document.")
            .example("report"),
        key("base", Kind::RequestPath)
            .or_else("The paths that the document's `servers` name; `/` if it names none.")
            .means(
                "The path below which those of the document lie, as clients ask for them, whatever its \
                 `servers` say.",
            )
            .example("/v1"),
        key("unknown_query", Kind::Words(UnknownQuery::WORDS))
            .or("refuse")
            .means(
                "What becomes of a parameter of the query that the document does not name. Keys that its \
                 `securitySchemes` name are known.",
            )
            .example("pass"),
    ],
    later: &[],
};
