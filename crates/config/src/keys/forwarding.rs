//! What stands in a route of `[listener.NAME]` about how requests go on, or are answered: shares, rewrites,
//! sessions, copies, redirects.

use std::time::Duration;

use crate::key::{Block, Key, Kind, key};
use crate::protocol::Protocol::Http;

pub(crate) static SHARE: Block = Block {
    path: "listener.*.route.upstream",
    meaning: "One of several upstreams that share the requests of a route.",
    keys: &[
        key("name", Kind::Name)
            .means("The upstream that gets its part of the requests.")
            .example("orders-next")
            .only(&[Http]),
        key("weight", Kind::Whole { least: 0, most: 1_000_000 })
            .or("1")
            .means("Its part of the requests, beside the weights of the others; 0 takes it out of use.")
            .example("5"),
    ],
    later: &[],
};

pub(crate) static REWRITE: Block = Block {
    path: "listener.*.route.rewrite",
    meaning: "The path and the host that upstreams are asked for. The query stays as it is.",
    keys: &[
        key("path", Kind::PathPattern)
            .or_else("The path that clients ask for, or what `strip_prefix` leaves of it.")
            .means(
                "The path, made of whole segments: `{id}` is the segment that the route's path calls so, and \
                 `{rest}` at the end is all that stands behind the route's path.",
            )
            .example("/v2/{rest}"),
        key("strip_prefix", Kind::PathPattern)
            .or_else("Nothing is taken away.")
            .means("What is taken away in front: the route's path, or its first segments.")
            .example("/api"),
        key("host", Kind::Authority)
            .or_else("The host that clients ask for.")
            .means("The host; `X-Forwarded-Host` says which one was asked for.")
            .example("shop.internal"),
    ],
    later: &[],
};

/// What `request_headers` and `response_headers` have in common.
const SET: Key = key("set", Kind::FieldValues)
    .or_else("None.")
    .means("Fields that stand there once, with these values, whatever came.")
    .example(r#"{ x-tenant = "shop" }"#);
const ADD: Key = key("add", Kind::FieldValues)
    .or_else("None.")
    .means("Fields that stand there beside those of the same name that came.")
    .example(r#"{ x-seen-by = "edge" }"#);
const REMOVE: Key = key("remove", Kind::List(&Kind::Token))
    .or_else("None.")
    .means("Fields that do not stand there, whatever came.")
    .example(r#"["x-debug"]"#);

pub(crate) static EDITS: Block = Block {
    path: "listener.*.route.request_headers",
    meaning: "What is changed of the fields of requests. Those that frame a message, end at one hop or say \
              where a request comes from are the server's own.",
    keys: &[SET, ADD, REMOVE],
    later: &[],
};

pub(crate) static RESPONSE_EDITS: Block = Block {
    path: "listener.*.route.response_headers",
    meaning: "What is changed of the fields of answers, the route's own among them. Those that frame a \
              message or end at one hop are the server's own.",
    keys: &[SET, ADD, REMOVE],
    later: &[],
};

pub(crate) static SESSION: Block = Block {
    path: "listener.*.route.session",
    meaning: "How clients come back to the endpoint that served them. The keys that seal the cookies are in \
              `session.keys` in the data folder: the first one seals, all of them open.",
    keys: &[
        key("cookie", Kind::Token)
            .or("tieline_session")
            .means("The name of the cookie.")
            .example("shop_session"),
        key("ttl", Kind::Duration { least: Duration::from_secs(1) })
            .or_else("As long as the browser keeps the cookie.")
            .means("How long after its last request a client is remembered.")
            .example("1h"),
    ],
    later: &[],
};

pub(crate) static MIRROR: Block = Block {
    path: "listener.*.route.mirror",
    meaning: "Where copies of requests are sent.",
    keys: &[
        key("upstream", Kind::Name).means("The upstream that gets the copies.").example("shadow"),
        key("percent", Kind::Percent)
            .or("100%")
            .means("How many of all requests are copied, drawn at random.")
            .example("10%"),
    ],
    later: &[],
};

pub(crate) static REDIRECT: Block = Block {
    path: "listener.*.route.redirect",
    meaning: "An answer that tells clients to ask elsewhere.",
    keys: &[
        key("to", Kind::Target)
            .means(
                "Where: a URL or a path. `{host}` is the host that was asked for, without its port; `{path}` \
                 is the path, with the slash it begins with; `{query}` is the query with its question mark, \
                 or nothing.",
            )
            .example("https://{host}{path}{query}"),
        key("status", Kind::Whole { least: 301, most: 308 })
            .or("308")
            .means(
                "301 or 308 for ever, 302 or 307 for now, 303 to look at something else. 307 and 308 keep \
                 the method and the body.",
            )
            .example("307"),
    ],
    later: &[],
};

pub(crate) static RESPOND: Block = Block {
    path: "listener.*.route.respond",
    meaning: "An answer that is always the same.",
    keys: &[
        key("status", Kind::Whole { least: 200, most: 599 })
            .means("The status of the answer.")
            .example("503"),
        key("body", Kind::Text)
            .or_else("The answer has no body.")
            .means("What the answer says, in UTF-8.")
            .example("Back at noon."),
        key("type", Kind::MediaType)
            .or("text/plain; charset=utf-8")
            .means("What the body is: the `Content-Type` of the answer.")
            .example("text/html; charset=utf-8"),
    ],
    later: &[],
};
