//! What stands between a route and its upstream: rates and interfaces.

use crate::key::{Block, Key, Kind, WHOLE_MAX, key};
use crate::words::{ApiMode, BandwidthPer, UnknownQuery};

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

pub(crate) static BANDWIDTH: Block = Block {
    path: "listener.*.route.bandwidth",
    meaning: "How fast the bytes of a route may go. What is faster has to wait: nothing is refused, and \
              nothing piles up here. Heads are not counted, nor is what HTTP/2 and TLS add.",
    keys: &[
        key("down", Kind::ByteRate)
            .or_else("As fast as it goes.")
            .means("How fast answers go to clients, and with other protocols what the upstream sends.")
            .example("10MiB/s"),
        key("up", Kind::ByteRate)
            .or_else("As fast as it goes.")
            .means("How fast the bodies of requests go to the upstream, and what clients send otherwise.")
            .example("2MiB/s"),
        key("per", Kind::Words(BandwidthPer::WORDS))
            .or("exchange")
            .means("What shares the bandwidth. Those who share it are served in turn.")
            .example("ip"),
    ],
    later: &[],
};

/// The keys of a rate, which a listener and a route may have.
const RATE_KEYS: &[Key] = &[
    key("per", Kind::RatePer)
        .or("ip")
        .means(
            "What is counted together: `ip`, the requests of one client (an IPv6 /64 counts as one); \
             `route`, all of them; or `header:NAME`, those with the same value of that field. Those without \
             the field are counted by their client.",
        )
        .example("header:x-api-key"),
    key("rate", Kind::Rate)
        .means("How many requests may come per second, minute or hour, evenly spread.")
        .example("100/s"),
    key("burst", Kind::Whole { least: 1, most: WHOLE_MAX })
        .or_else("As many as `rate` names: a second's worth, a minute's or an hour's.")
        .means("How many requests may come at once, after as long a silence as they are worth.")
        .example("200"),
    key("tell", Kind::Flag)
        .or("false")
        .means(
            "Whether answers say how many requests are left, in the fields `RateLimit-Policy` and \
             `RateLimit` of draft-ietf-httpapi-ratelimit-headers. `r` is how many may come at once, `t` the \
             seconds until nothing is used up any more.",
        )
        .example("true"),
];

pub(crate) static RATE: Block = Block {
    path: "listener.*.route.rate",
    meaning: "How often requests of a route may come, counted for the whole process. A request too many is \
              answered with 429 and told when to come again.",
    keys: RATE_KEYS,
    later: &[],
};

pub(crate) static LISTENER_RATE: Block = Block {
    path: "listener.*.rate",
    meaning: "How often requests of all routes of a listener together may come.",
    keys: RATE_KEYS,
    later: &[],
};
