//! `[listener.NAME]` and what stands in it.

use std::time::Duration;

use Protocol::{Http, Postgres, Tcp, Tunnel, Wireguard};

use super::allow::ALLOW;
use super::forwarding::{EDITS, MIRROR, REDIRECT, RESPOND, RESPONSE_EDITS, REWRITE, SESSION, SHARE};
use super::guards::{API, BANDWIDTH, LISTENER_RATE, RATE};
use super::limits::LIMITS;
use super::postgres::{AUTH_QUERY, CONSOLE};
use super::support::{APPROVAL, FAR_TIMEOUTS};
use super::tls::TLS;
use crate::key::{Block, COUNT_OR_OFF, Kind, Of, WHOLE_MAX, key, of_protocols};
use crate::protocol::Protocol;
use crate::words::{
    AccessWord, Auth, Logged, OFF, PriorityWord, ProxyProtocolIn, ReplicaReads, RouteRole, SELF_SIGNED, Tell,
};

const MILLISECOND: Duration = Duration::from_millis(1);

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
            .only(&[Tcp, Http, Postgres]),
        key("client_ca", Kind::Path)
            .or_else("People prove themselves by tokens alone.")
            .means(
                "The file of the roots that sign the certificates of people who link up by `tieline connect \
                 --certificate`, in PEM. A certificate proves an identity: the first that it has of a URI, a \
                 DNS name, an e-mail address and a common name. Agents are vouched for by the built-in \
                 authority alone.",
            )
            .example("people.pem")
            .only(&[Tunnel]),
        key("client_crl", Kind::Path)
            .or_else("Certificates of people count until they expire.")
            .means(
                "The file of the revocation lists of `client_ca`, in PEM: one of each authority between a \
                 person and its root, none of them past its next update, or nobody of them is let in. It is \
                 read again when it changes; who is on it then is cut off.",
            )
            .example("people.crl")
            .only(&[Tunnel]),
        key("tls_required", Kind::Flag)
            .or("true")
            .means(
                "Where there is `tls`: whether clients that do not ask for it are refused. Clients of unix \
                 sockets need none.",
            )
            .example("false")
            .only(&[Postgres]),
        key("auth", Kind::Words(Auth::WORDS))
            .or("scram")
            .means("What clients that log in are asked for.")
            .example("certificate")
            .only(&[Postgres]),
        key("auth_query", Kind::Table(&AUTH_QUERY))
            .or_else("The users are those of the config.")
            .means("Where users are looked up that no [user.NAME] names.")
            .example(r#"{ upstream = "lookup" }"#)
            .only(&[Postgres]),
        key("console", Kind::Table(&CONSOLE))
            .or_else("There is no console here.")
            .means("Who may use the console.")
            .example(r#"{ admin = "ana" }"#)
            .only(&[Postgres]),
        key("http2", Kind::Flag)
            .or("true")
            .means(
                "Whether clients may speak HTTP/2: over TLS where they agree on it (ALPN), without TLS where \
                 they know it beforehand. They may speak HTTP/1 in any case.",
            )
            .example("false")
            .only(&[Http]),
        key("quic", Kind::Flag)
            .or("true")
            .means(
                "Whether links may go over QUIC, on the UDP ports of the same numbers, beside TLS over TCP. \
                 With `proxy_protocol` they never do: QUIC has no place for its header.",
            )
            .example("false")
            .only(&[Tunnel]),
        key("access_log", Kind::Words(Logged::WORDS))
            .or_else("`connections` with `postgres`, else `exchanges`.")
            .means(
                "What the access log gets a line for: each exchange (a request, a transaction), or each \
                 connection as a whole. `server.access_log` says where it goes.",
            )
            .example("connections"),
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
            .or_else("Connections have no limits; requests have the defaults of these keys.")
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
            .or_else("With `tunnel` there are none, and every other protocol needs one.")
            .means(
                "Where connections and requests go: one route for everything that clients can ask for, or a \
                 single one for all.",
            )
            .example(r#"[{ upstream = "db", access = "public" }]"#),
    ],
    later: &[of_protocols("peers", &[Wireguard])],
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
            .or_else("75s with protocol \"http\", 1d with \"postgres\", and 1h with every other.")
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
        key("min_rate", Kind::Either(&[Kind::Words(OFF), Kind::ByteRate]))
            .or("256B/s")
            .means(
                "How slowly a client may send the body of a request, or take what there is of its answer, on \
                 average over `body_gap` or the upstream's `gap`. One that is slower is answered with 408, \
                 or cut off where its answer has begun. gRPC calls may send as slowly as they like.",
            )
            .example("1KiB/s")
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
    later: &[],
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
        key("service", Kind::OneOrMore(&Kind::Far))
            .or_else("The route takes every service of every agent.")
            .means(
                "What people ask for by `tieline connect AGENT/SERVICE`, or several; `*` stands for any \
                 agent or any service. The route that names the agent wins, then the one that names the \
                 service. It leads to that agent, without an `upstream`.",
            )
            .example("plant-7/ssh")
            .only(&[Tunnel]),
        key("database", Kind::OneOrMore(&Kind::SqlName))
            .or_else("The route takes logins to any database.")
            .means("The database that clients ask for, or several.")
            .example("orders")
            .only(&[Postgres]),
        key("role", Kind::Words(RouteRole::WORDS))
            .or_else("Primary where the upstream has several endpoints, or one with a `role`; else any.")
            .means(
                "Which of the servers that hold the same data the route leads to; which one is what is found \
                 out by asking them (`upstream.*.replicas`).",
            )
            .example("replica")
            .only(&[Postgres]),
        key("connections", COUNT_OR_OFF)
            .or_else("`limits.per_database` of the listener holds.")
            .means(
                "How many clients may be logged in at once to each database that the route leads to, counted \
                 over all listeners and users; \"off\": any number.",
            )
            .example("500")
            .only(&[Postgres]),
        key("replica_reads", Kind::Words(ReplicaReads::WORDS))
            .or("off")
            .means(
                "What replicas serve although the route leads to the primary: `transactions` that begin with \
                 BEGIN READ ONLY or START TRANSACTION READ ONLY, or `statements` outside of a \
                 transaction too, where one alone surely only reads. What is not sure goes to the primary.",
            )
            .example("transactions")
            .only(&[Postgres]),
        key("read_your_writes", Kind::Flag)
            .or("true")
            .means(
                "Whether `replica_reads` lead a client that has written only to replicas that are known to \
                 have it, and until then to the primary; `replicas.every` says how soon that is known.",
            )
            .example("false")
            .only(&[Postgres]),
        key("replication", Kind::Flag)
            .or("false")
            .means(
                "Whether clients may replicate by this route (`pg_basebackup`, `pg_receivewal`, standbys, \
                 subscriptions). Each such connection has a server of its own, which counts towards \
                 `pool.size` for as long as it lasts, and reads more than its user's rights to tables allow. \
                 One that replicates a whole server asks for no database: its route names none.",
            )
            .example("true")
            .only(&[Postgres]),
        key("user", Kind::OneOrMore(&Kind::SqlName))
            .or_else("The route takes logins of any user.")
            .means(
                "The user that clients log in as, or several. A route that names database and user comes \
                 before one that names a database, and that before one that names a user.",
            )
            .example("reporting")
            .only(&[Postgres]),
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
        key("bandwidth", Kind::Either(&[Kind::ByteRate, Kind::Table(&BANDWIDTH)]))
            .or_else("Bytes go as fast as they can.")
            .means(
                "How fast bytes may go. A rate alone is that of each answer, and with other protocols of \
                 what the upstream sends to each connection.",
            )
            .example(r#"{ down = "10MiB/s", up = "2MiB/s", per = "ip" }"#),
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
        key("approval", Kind::Table(&APPROVAL))
            .or_else("Whoever is let in need not ask anybody.")
            .means(
                "Somebody has to agree before a service is opened. Whoever is let in asks by opening it, and \
                 waits; see `tieline approvals`.",
            )
            .example(r#"{ by = ["lead", "group:leads"], for = "2h" }"#)
            .only(&[Tunnel]),
        key("timeouts", Kind::Table(&FAR_TIMEOUTS))
            .or_else("Streams last for as long as their link does.")
            .means("How long each stream to a far service may last.")
            .example(r#"{ idle = "30m", max_age = "8h" }"#)
            .only(&[Tunnel]),
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
    later: &[],
};
