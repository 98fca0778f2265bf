//! `[listener.NAME]` and what stands in it.

use std::time::Duration;

use Protocol::{Http, Mysql, Postgres, Tcp, Wireguard};
use tieline_base::Bytes;

use super::forwarding::{EDITS, MIRROR, RESPONSE_EDITS, REWRITE, SESSION, SHARE};
use super::guards::{API, LISTENER_RATE, RATE};
use crate::key::{Block, Kind, Of, WHOLE_MAX, key, of_feature, of_protocols};
use crate::protocol::Protocol;
use crate::words::{AccessWord, ClientWord, OFF, PriorityWord, ProxyProtocolIn, SELF_SIGNED, Tell};

const MILLISECOND: Duration = Duration::from_millis(1);

/// A head is held in memory as a whole, for every request that is being read.
const HEAD: Kind = Kind::Size { least: Bytes(1 << 10), most: Bytes(1 << 20) };

pub(crate) static LISTENER: Block = Block {
    path: "listener.*",
    meaning: "Where connections are accepted, by which protocol and under which limits.",
    keys: &[
        key("bind", Kind::OneOrMore(&Kind::Bind))
            .means(
                "The address to accept at, or several. 0.0.0.0 is every IPv4 address of this machine and \
                 [::] every IPv6 address; port 0 is any free port.",
            )
            .example(r#"["0.0.0.0:6432", "[::]:6432"]"#),
        key("protocol", Kind::Protocol).means("What clients speak here.").example("tcp"),
        key("tls", Kind::Either(&[Kind::Words(SELF_SIGNED), Kind::OneOrMore(&Kind::Table(&TLS))]))
            .or_else("Clients speak without TLS, or TLS is passed through to the endpoints.")
            .means(
                "Clients speak TLS, which ends here. The name that a client asks for chooses among several \
                 certificates; the first is for all others.",
            )
            .example(r#"{ certificate = "web.crt", key = "web.key" }"#)
            .only(&[Tcp, Http]),
        key("http2", Kind::Flag)
            .or("true")
            .means(
                "Whether clients may speak HTTP/2: over TLS where they agree on it (ALPN), without TLS where \
                 they know it beforehand. They may speak HTTP/1 in any case.",
            )
            .example("false")
            .only(&[Http]),
        key("proxy_protocol", Kind::Words(ProxyProtocolIn::WORDS))
            .or("off")
            .means(
                "Whether connections begin with a PROXY protocol header (v1 or v2) that names their true \
                 client.",
            )
            .example("required"),
        key("trusted", Kind::List(&Kind::Network))
            .or_else("Nobody is trusted.")
            .means(
                "Who may send a PROXY protocol header: the load balancers before this server, and nobody \
                 else.",
            )
            .example(r#"["10.0.0.0/24"]"#),
        key("trusted_forwarders", Kind::List(&Kind::Network))
            .or_else("Nobody is trusted.")
            .means(
                "Whose `X-Forwarded-For` or `Forwarded` fields name the true client, and whose \
                 `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Request-Id` are kept: the HTTP proxies \
                 before this server. Everybody else's are replaced. The client is the first from the right \
                 that is not one of these; `allow`, `hash_by`, the log and the live table go by it.",
            )
            .example(r#"["10.0.0.0/24"]"#)
            .only(&[Http]),
        key("forwarded", Kind::Words(Tell::WORDS))
            .or("x-forwarded")
            .means("By which fields upstreams are told where a request comes from.")
            .example("both")
            .only(&[Http]),
        key("limits", Kind::Table(&LIMITS))
            .or_else("There are no limits.")
            .means("How many connections are let in, and how large requests may be.")
            .example(r#"{ connections = 10000, per_ip = 100, accept_rate = "500/s" }"#),
        key("rate", Kind::OneOrMore(&Kind::Table(&LISTENER_RATE)))
            .or_else("No limit.")
            .means("How often requests may come, by one rule or several, whatever their route.")
            .example(r#"{ per = "ip", rate = "200/s" }"#)
            .only(&[Http]),
        key("timeouts", Kind::Table(&TIMEOUTS))
            .or_else("Every key has its default.")
            .means("How long each thing may take.")
            .example(r#"{ handshake = "10s", idle = "15m" }"#),
        key("keepalive", Kind::Either(&[Kind::Words(OFF), Kind::Duration { least: Duration::from_secs(1) }]))
            .or("60s")
            .means(
                "After so much silence of a client the kernel asks whether it still lives. Upstreams are \
                 asked after a minute.",
            )
            .example("30s"),
        key("unix_mode", Kind::Mode)
            .or("0660")
            .means("The permissions of the unix sockets in `bind`.")
            .example("0600"),
        key("route", Kind::List(&Kind::Table(&ROUTE)))
            .means(
                "Where connections and requests go: one route for everything that clients can ask for, or a \
                 single one for all.",
            )
            .example(r#"[{ upstream = "db", access = "public" }]"#),
    ],
    later: &[of_protocols("auth", &[Postgres, Mysql]), of_protocols("peers", &[Wireguard])],
};

pub(crate) static TLS: Block = Block {
    path: "listener.*.tls",
    meaning: "A certificate that is shown to clients, and what they show.",
    keys: &[
        key("certificate", Kind::Path)
            .means("The file of the certificate, followed by those between it and its root, in PEM.")
            .example("web.crt"),
        key("key", Kind::Path).means("The file of the certificate's private key, in PEM.").example("web.key"),
        key("client_ca", Kind::Path)
            .or_else("Clients are asked for no certificate.")
            .means(
                "The file of the roots that sign the certificates of clients, in PEM. A certificate proves \
                 an identity: the first that it has of a URI, a DNS name, an e-mail address and a common \
                 name.",
            )
            .example("clients.pem"),
        key("client_crl", Kind::Path)
            .or_else("Certificates of clients count until they expire.")
            .means(
                "The file of the revocation lists of `client_ca`, in PEM: one of each authority between a \
                 client and its root, none of them past its next update, or nobody is let in. It is read \
                 again when it changes; who is on it then is cut off.",
            )
            .example("clients.crl"),
        key("client", Kind::Words(ClientWord::WORDS))
            .or("required")
            .means("Where there is a `client_ca`: what becomes of clients that show no certificate.")
            .example("optional"),
    ],
    later: &[],
};

pub(crate) static LIMITS: Block = Block {
    path: "listener.*.limits",
    meaning: "How many connections a listener lets in, and how large requests may be. Connections beyond \
              a limit are refused before any cryptography.",
    keys: &[
        key("connections", Kind::Whole { least: 1, most: WHOLE_MAX })
            .or_else("No limit but the server's file descriptors.")
            .means("How many connections may live at once.")
            .example("10000"),
        key("per_ip", Kind::Whole { least: 1, most: WHOLE_MAX })
            .or_else("No limit.")
            .means("How many connections one client IP address may hold at once.")
            .example("100"),
        key("accept_rate", Kind::Rate)
            .or_else("No limit.")
            .means("How many new connections are let in per second, minute or hour.")
            .example("500/s"),
        key("request_line", HEAD)
            .or("8KiB")
            .means("How long the first line of a request may be; a longer one is answered with 414.")
            .example("4KiB")
            .only(&[Http]),
        key("request_head", HEAD)
            .or("32KiB")
            .means("How long the whole head of a request may be; a longer one is answered with 431.")
            .example("16KiB")
            .only(&[Http]),
        key("request_fields", Kind::Whole { least: 1, most: 128 })
            .or("100")
            .means("How many fields the head of a request may have; one with more is answered with 431.")
            .example("50")
            .only(&[Http]),
        key("streams", Kind::Whole { least: 1, most: 10_000 })
            .or("128")
            .means(
                "How many requests one HTTP/2 connection may have open at once. One that its client gave up \
                 counts until the work for it has ended.",
            )
            .example("32")
            .only(&[Http]),
        key("body", Kind::Size { least: Bytes(0), most: Bytes(u64::MAX) })
            .or_else("No limit.")
            .means("How long the body of a request may be; a longer one is answered with 413.")
            .example("10MiB")
            .only(&[Http]),
        key("validated_body", Kind::Size { least: Bytes(1), most: Bytes(1 << 30) })
            .or("1MiB")
            .means(
                "How long a body may be that is held in memory because the route's `api` checks it; a longer \
                 one is answered with 413.",
            )
            .example("256KiB")
            .only(&[Http]),
    ],
    later: &[],
};

pub(crate) static TIMEOUTS: Block = Block {
    path: "listener.*.timeouts",
    meaning: "How long each thing may take on the side of the clients.",
    keys: &[
        key("handshake", Kind::Duration { least: MILLISECOND })
            .or("10s")
            .means(
                "From accept until the client is understood: its PROXY protocol header and its first bytes.",
            )
            .example("5s"),
        key("idle", Kind::Duration { least: MILLISECOND })
            .or_else("75s with protocol \"http\", and 1h with every other.")
            .means(
                "A connection on which no byte moved either way for so long ends with reason `idle`. With \
                 protocol \"http\" it is the time between two requests.",
            )
            .example("15m"),
        key("request_head", Kind::Duration { least: MILLISECOND })
            .or("10s")
            .means("From the first byte of a request until its head is complete; else the answer is 408.")
            .example("5s")
            .only(&[Http]),
        key("body_gap", Kind::Duration { least: MILLISECOND })
            .or("60s")
            .means(
                "How long the body of a request may stand still while the endpoint would take more; else \
                 the answer is 408.",
            )
            .example("30s")
            .only(&[Http]),
        key("tunnel_idle", Kind::Duration { least: MILLISECOND })
            .or("1h")
            .means(
                "An upgraded connection (a WebSocket) on which no byte moved either way for so long ends \
                 with reason `idle`.",
            )
            .example("10m")
            .only(&[Http]),
        key("max_age", Kind::Duration { least: MILLISECOND })
            .or_else("A connection may live for ever.")
            .means("A connection that lived for so long (give or take a tenth) ends with reason `max-age`.")
            .example("24h"),
        key("drain", Kind::Duration { least: Duration::ZERO })
            .or("30s")
            .means("How long live connections may go on when this listener or the server drains.")
            .example("5m"),
    ],
    later: &[of_feature("min_rate", "least rates of bodies")],
};

pub(crate) static ROUTE: Block = Block {
    path: "listener.*.route",
    meaning: "What goes where, and for whom. The most exact `sni` or `host` wins, then the longest `path`; \
              the route without one takes what is left.",
    keys: &[
        key("name", Kind::Name)
            .or_else("The name of the upstream, numbered where it is taken.")
            .means(
                "What the route is called in lists, logs and metrics; no other route of the listener may \
                 bear it.",
            )
            .example("orders"),
        key("sni", Kind::OneOrMore(&Kind::Sni))
            .or_else("The route takes every connection that no other route takes.")
            .means(
                "The name that a TLS client asks for, or several; TLS is passed through untouched. \
                 `*.example.com` takes every name with one label before example.com that has no route of its \
                 own.",
            )
            .example("db.example.com")
            .only(&[Tcp]),
        key("host", Kind::OneOrMore(&Kind::Host))
            .or_else("The route takes requests for any host.")
            .means(
                "The host that a request is for, or several; its port counts for nothing. `*.example.com` \
                 takes every name with one label before example.com that has no route of its own.",
            )
            .example("shop.example.com")
            .only(&[Http]),
        key("path", Kind::PathPattern)
            .or_else("The route takes requests for any path.")
            .means(
                "The path that a request is for, and all that is below it: `/api` takes `/api/users` and \
                 not `/apis`. `{name}` as a whole segment stands for any one; `=` in front takes this path \
                 alone, as in `= /healthz`.",
            )
            .example("/api")
            .only(&[Http]),
        key("method", Kind::OneOrMore(&Kind::Method))
            .or_else("The route takes requests of any method.")
            .means("The method of a request, or several, in capitals.")
            .example(r#"["GET", "HEAD"]"#)
            .only(&[Http]),
        key("headers", Kind::Conditions(Of::Fields))
            .or_else("The route takes requests with any fields.")
            .means("What fields of the request's head must be, all of them.")
            .example(r#"{ x-version = "2" }"#)
            .only(&[Http]),
        key("query", Kind::Conditions(Of::Parameters))
            .or_else("The route takes requests with any query.")
            .means("What parameters of the request's query must be after percent-decoding, all of them.")
            .example(r#"{ preview = "*" }"#)
            .only(&[Http]),
        key("upstream", Kind::Either(&[Kind::Name, Kind::OneOrMore(&Kind::Table(&SHARE))]))
            .or_else(
                "With protocol \"http\" the route answers by `redirect` or `respond`; else it is needed.",
            )
            .means(
                "The upstream that connections and requests go to. With protocol \"http\" it may be several \
                 that share the requests by weight.",
            )
            .example(r#"[{ name = "orders", weight = 95 }, { name = "orders-next", weight = 5 }]"#),
        key("split_by", Kind::HashBy)
            .or_else("Each request is drawn anew.")
            .means(
                "Where requests are shared among several upstreams: what is equal by this goes to the same \
                 one as long as the weights stay.",
            )
            .example("cookie:sid")
            .only(&[Http]),
        key("rewrite", Kind::Table(&REWRITE))
            .or_else("Upstreams are asked for the path and the host that clients ask for.")
            .means("The path and the host that upstreams are asked for.")
            .example(r#"{ strip_prefix = "/api" }"#)
            .only(&[Http]),
        key("request_headers", Kind::Table(&EDITS))
            .or_else("Fields of requests are passed on as they come.")
            .means("What is changed of the fields of requests.")
            .example(r#"{ set = { x-tenant = "shop" }, remove = ["x-debug"] }"#)
            .only(&[Http]),
        key("response_headers", Kind::Table(&RESPONSE_EDITS))
            .or_else("Fields of answers are passed on as they come.")
            .means("What is changed of the fields of answers.")
            .example(r#"{ set = { strict-transport-security = "max-age=31536000" }, remove = ["server"] }"#)
            .only(&[Http]),
        key("session", Kind::Table(&SESSION))
            .or_else("Every request goes to the endpoint that is best for it.")
            .means(
                "Clients come back to the endpoint that served them, by a cookie that only this server can \
                 read. One whose endpoint is gone, down or ejected gets another, and another cookie; an \
                 endpoint that is drained keeps its own clients and gets no new ones; one that is full is \
                 passed over for that request alone.",
            )
            .example(r#"{ cookie = "tieline_session", ttl = "1h" }"#)
            .only(&[Http]),
        key("mirror", Kind::Table(&MIRROR))
            .or_else("Requests are sent once.")
            .means(
                "Copies of requests are sent to another upstream, with `X-Tieline-Mirror`. Nobody waits for \
                 their answers, which are thrown away. Requests with a body of more than 64 KiB, and \
                 upgrades, are not copied.",
            )
            .example(r#"{ upstream = "shadow", percent = "10%" }"#)
            .only(&[Http]),
        key("redirect", Kind::Table(&REDIRECT))
            .or_else("The route has an `upstream`, or answers by `respond`.")
            .means("Tells clients to ask elsewhere.")
            .example(r#"{ to = "https://{host}{path}{query}", status = 308 }"#)
            .only(&[Http]),
        key("respond", Kind::Table(&RESPOND))
            .or_else("The route has an `upstream`, or answers by `redirect`.")
            .means("Answers every request in the same way.")
            .example(r#"{ status = 503, body = "Back at noon." }"#)
            .only(&[Http]),
        key("rate", Kind::OneOrMore(&Kind::Table(&RATE)))
            .or_else("No limit.")
            .means("How often requests may come, by one rule or several.")
            .example(r#"{ per = "ip", rate = "100/s", burst = 200 }"#)
            .only(&[Http]),
        key("concurrent", Kind::Whole { least: 1, most: WHOLE_MAX })
            .or_else("No limit.")
            .means(
                "How many requests of the route may be under way at once, upgraded connections among them. \
                 One too many is answered with 503.",
            )
            .example("500")
            .only(&[Http]),
        key("api", Kind::Either(&[Kind::Path, Kind::Table(&API)]))
            .or_else("Requests are not held against a document.")
            .means(
                "The OpenAPI document (3.0 or 3.1, YAML or JSON) that requests must keep to: its paths, \
                 methods, parameters and bodies. A request that does not is answered with what is wrong with \
                 it, and the upstream never sees it.",
            )
            .example("orders.openapi.yaml")
            .only(&[Http]),
        key("access", Kind::Words(AccessWord::WORDS))
            .or("policy")
            .means("Who decides about connections by this route.")
            .example("public"),
        key("allow", Kind::Table(&ALLOW))
            .or_else("Nobody is let in, unless `access` is \"public\".")
            .means("Whom `access = \"policy\"` lets in.")
            .example(r#"{ from = ["10.0.0.0/8"] }"#),
        key("priority", Kind::Words(PriorityWord::WORDS))
            .or("normal")
            .means(
                "How important what comes this way is: where an upstream has no room for all, the more \
                 important are served first, and the less important are refused first.",
            )
            .example("high"),
        key("schedule", Kind::OneOrMore(&Kind::Schedule))
            .or_else("The route is always open.")
            .means(
                "When the route is open: days, hours and a time zone (UTC if none is named), several \
                 divided by `;` or in an array. Outside of them new connections are refused, and live ones \
                 end after `grace`.",
            )
            .example("Mon-Fri 07:00-19:00 Europe/Berlin"),
        key("grace", Kind::Duration { least: Duration::ZERO })
            .or("30s")
            .means(
                "How long live connections go on when the schedule closed or the config no longer has the \
                 route.",
            )
            .example("5m"),
    ],
    later: &[of_protocols("database", &[Postgres, Mysql]), of_protocols("user", &[Postgres, Mysql])],
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

pub(crate) static ALLOW: Block = Block {
    path: "listener.*.route.allow",
    meaning: "Whom a route lets in: the short form of a policy.",
    keys: &[
        key("from", Kind::List(&Kind::Network))
            .or_else("Clients may come from anywhere, if there is an `identity`; else nobody is let in.")
            .means("The networks and addresses that clients may come from.")
            .example(r#"["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]"#),
        key("identity", Kind::List(&Kind::Identity))
            .or_else("Clients need not prove who they are, if there is a `from`; else nobody is let in.")
            .means(
                "Who clients must have proved to be, letter by letter; \"group:NAME\" stands for the members \
                 of [group.NAME]. What proves it is a client certificate (see `client_ca`). With `from`, \
                 both must hold.",
            )
            .example(r#"["ana", "group:support"]"#),
    ],
    later: &[],
};
