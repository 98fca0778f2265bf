//! `[upstream.NAME]` and what stands in it.

use std::time::Duration;

use Protocol::{Http, Postgres};

use super::postgres::{DUE, REPLICAS};
use crate::key::{Block, Kind, WHOLE_MAX, key};
use crate::protocol::Protocol;
use crate::words::{
    BalanceWord, ConcurrencyWord, HttpVersion, Negotiation, OFF, PoolMode, PoolReset, ProxyProtocolOut,
    RetryOn, Role, UpstreamProtocol, UpstreamTlsWord, Verify,
};

const MILLISECOND: Duration = Duration::from_millis(1);

pub(crate) static UPSTREAM: Block = Block {
    path: "upstream.*",
    meaning: "A set of endpoints that do the same work.",
    keys: &[
        key("protocol", Kind::Words(UpstreamProtocol::WORDS))
            .or_else("What the listeners speak that lead there, with no login of our own.")
            .means(
                "What endpoints speak, where connections to them have a login of their own: what a listener \
                 of protocol \"postgres\" leads to.",
            )
            .example("postgres"),
        key("endpoints", Kind::List(&Kind::Either(&[Kind::Endpoint, Kind::Table(&ENDPOINT)])))
            .means(
                "Whom to connect to: addresses, or tables with an `address` and more. Names are resolved \
                 again by their TTL. Addresses may be written as `https://host:port` or `http://host`: then \
                 the first means TLS, as `tls = \"verify-full\"` does, for all of them or none. \
                 `agent:plant-7/web` is what the agent plant-7 offers as web; `agent:site=berlin/web` is \
                 the same of every agent of that label that is linked up (`site=berlin,role=edge` asks for \
                 both).",
            )
            .example(r#"["10.0.0.5:5432", { address = "db.example.com:5432", tier = 2 }]"#),
        key("balance", Kind::Words(BalanceWord::WORDS))
            .or("peak-ewma")
            .means("How an endpoint is chosen among those that are up.")
            .example("least-requests"),
        key("hash_by", Kind::HashBy)
            .or("remote")
            .means(
                "What `balance = \"hash\"` hashes: the client's IP address, the name that a TLS client asks \
                 for, or a field or cookie of an HTTP request. A request without that field or cookie counts \
                 by its client's IP address.",
            )
            .example("header:x-user"),
        key("health", Kind::Table(&HEALTH))
            .or_else("Endpoints are judged by the connections made to them, and by nothing else.")
            .means("How endpoints are asked whether they are well, besides what their connections tell.")
            .example(r#"{ tcp = true, every = "2s", rise = 2, fall = 3 }"#),
        key("timeouts", Kind::Table(&TIMEOUTS))
            .or_else("Every key has its default.")
            .means("How long each thing may take.")
            .example(r#"{ connect = "5s", acquire = "5s" }"#),
        key("pool", Kind::Table(&POOL))
            .or_else("Every key has its default.")
            .means("How many connections there may be.")
            .example("{ size = 200, queue = 1000 }"),
        key("retry", Kind::Table(&RETRY))
            .or_else("Every key has its default.")
            .means("When another endpoint is tried.")
            .example(r#"{ attempts = 2, budget = "20%" }"#),
        key("outlier", Kind::Table(&OUTLIER))
            .or_else("Every key has its default.")
            .means("When an endpoint whose connections fail is left out for a while.")
            .example(r#"{ failures = 5, eject = "10s", max = "50%" }"#),
        key("breaker", Kind::Table(&BREAKER))
            .or_else("There are no breakers.")
            .means(
                "When an endpoint of which too much fails is asked nothing for a while, be it the last one: \
                 the answer is 503 then. `{}` switches it on with its defaults.",
            )
            .example(r#"{ requests = 20, failures = "50%", open = "5s" }"#),
        key("hedge", Kind::Table(&HEDGE))
            .or_else("No request is sent twice because it takes long.")
            .means(
                "When a second endpoint is asked too because the first one takes long: the first answer \
                 wins. Only for requests that do no harm if done twice, and that are held whole. `{}` \
                 switches it on with its defaults.",
            )
            .example(r#"{ percentile = 95, budget = "5%" }"#)
            .only(&[Http]),
        key("concurrency", Kind::Words(ConcurrencyWord::WORDS))
            .or("fixed")
            .means("How many requests may be in flight at once; the rest wait.")
            .example("adaptive")
            .only(&[Http]),
        key("slow_start", Kind::Duration { least: Duration::ZERO })
            .or("0s")
            .means("An endpoint that came up gets its full share only after so long.")
            .example("30s"),
        key("panic", Kind::Percent)
            .or("50%")
            .means(
                "When fewer endpoints than this are up, all are used: a broken check must not put all load \
                 on a few.",
            )
            .example("30%"),
        key("proxy_protocol", Kind::Words(ProxyProtocolOut::WORDS))
            .or("off")
            .means("The PROXY protocol header that tells endpoints who the client is.")
            .example("v2"),
        key("database", Kind::SqlName)
            .or_else("The database that the client asks for.")
            .means("The database that servers are asked for.")
            .example("orders")
            .only(&[Postgres]),
        key("user", Kind::SqlName)
            .or_else("Whom the client logged in as, by its own proof if the server has the same verifier.")
            .means("Whom we log in to servers as.")
            .example("app")
            .only(&[Postgres]),
        key("password_file", Kind::Path)
            .or_else("`user` has no password: servers trust it, or its certificate.")
            .means(
                "The file of the password of `user`, readable by nobody else; a line break at its end is not \
                 part of it.",
            )
            .example("orders.pw")
            .only(&[Postgres]),
        key("replicas", Kind::Table(&REPLICAS))
            .or_else("Every key has its default.")
            .means("How servers that hold the same data are told apart, and when a replica serves reads.")
            .example(r#"{ max_lag = "5s", fallback = "wait" }"#)
            .only(&[Postgres]),
        key("share", Kind::OneOrMore(&Kind::Table(&DUE)))
            .or_else("All users are alike.")
            .means(
                "What of scarce servers is due to which users: how much beside others, what is kept for \
                 them, and what they may have at once.",
            )
            .example(r#"[{ user = "web", weight = 3, floor = 4 }, { user = "batch", cap = 5 }]"#)
            .only(&[Postgres]),
        key("http_version", Kind::Words(HttpVersion::WORDS))
            .or(r#""1.1""#)
            .means("The version of HTTP that endpoints are spoken to in, whatever clients speak.")
            .example(r#""2""#)
            .only(&[Http]),
        key("tls", Kind::Either(&[Kind::Words(UpstreamTlsWord::WORDS), Kind::Table(&TLS)]))
            .or_else(
                "Off; with protocol \"postgres\" it is \"verify-full\" where an endpoint is not on this \
                 machine.",
            )
            .means("Whether endpoints are spoken to by TLS, and what of their certificates is verified.")
            .example(r#"{ ca = "ca.pem", server_name = "db.internal" }"#),
    ],
    later: &[],
};

pub(crate) static ENDPOINT: Block = Block {
    path: "upstream.*.endpoints",
    meaning: "One member of an upstream.",
    keys: &[
        key("address", Kind::Endpoint)
            .means("Whom to connect to: host:port, [v6]:port or unix:/path.")
            .example("10.0.0.5:5432"),
        key("weight", Kind::Whole { least: 1, most: 1_000 })
            .or("1")
            .means("Its share of the load, beside the weights of the others in its tier.")
            .example("2"),
        key("tier", Kind::Whole { least: 1, most: 8 })
            .or("1")
            .means(
                "When it is used: a tier gets connections only while no lower tier has an endpoint that is \
                 up.",
            )
            .example("2"),
        key("connections", Kind::Whole { least: 1, most: WHOLE_MAX })
            .or_else("No limit.")
            .means(
                "How many connections it may have at once, those at rest included; the rest go elsewhere, \
                 or wait.",
            )
            .example("50"),
        key("role", Kind::Words(Role::WORDS))
            .or("auto")
            .means("What it is to the other servers that hold the same data.")
            .example("replica")
            .only(&[Postgres]),
    ],
    later: &[],
};

pub(crate) static TLS: Block = Block {
    path: "upstream.*.tls",
    meaning: "How endpoints prove themselves by TLS, and we to them.",
    keys: &[
        key("verify", Kind::Words(Verify::WORDS))
            .or("full")
            .means("What of an endpoint's certificate is verified.")
            .example("none"),
        key("ca", Kind::Path)
            .or_else("The roots that the system trusts.")
            .means("The file of the roots that sign the certificates of endpoints, in PEM; no others count.")
            .example("ca.pem"),
        key("server_name", Kind::ServerName)
            .or_else("The name or IP address of each endpoint.")
            .means("The name that endpoints are asked for, and that their certificates must be for.")
            .example("db.internal"),
        key("certificate", Kind::Path)
            .or_else("Endpoints are shown no certificate.")
            .means("The file of the certificate that endpoints are shown if they ask, in PEM.")
            .example("client.crt"),
        key("key", Kind::Path)
            .or_else("Endpoints are shown no certificate.")
            .means("The file of that certificate's private key, in PEM.")
            .example("client.key"),
        key("negotiation", Kind::Words(Negotiation::WORDS))
            .or("request")
            .means(
                "How TLS begins: servers are asked for it first, or spoken to by TLS at once, which needs \
                 PostgreSQL 17 and saves a round trip for each new connection.",
            )
            .example("direct")
            .only(&[Postgres]),
    ],
    later: &[],
};

pub(crate) static HEALTH: Block = Block {
    path: "upstream.*.health",
    meaning: "How endpoints are asked whether they are well. Exactly one of `tcp`, `http`, `grpc`, \
              `postgres`, `mysql` and `redis` says how.",
    keys: &[
        key("tcp", Kind::Flag)
            .or_else("Asked in another way.")
            .means("By a TCP connection that succeeds.")
            .example("true"),
        key("http", Kind::RequestPath)
            .or_else("Asked in another way.")
            .means("By an HTTP request for this path that is answered with a status from 200 to 399.")
            .example("/healthz"),
        key("grpc", Kind::Text)
            .or_else("Asked in another way.")
            .means(
                "By the health service of gRPC, asked for this service; for the whole server if it is empty.",
            )
            .example("orders.Orders"),
        key("postgres", Kind::Flag)
            .or_else("Asked in another way.")
            .means("By the answer of a PostgreSQL server to a request for TLS; no login.")
            .example("true"),
        key("mysql", Kind::Flag)
            .or_else("Asked in another way.")
            .means("By the greeting of a MySQL or MariaDB server; no login.")
            .example("true"),
        key("redis", Kind::Flag)
            .or_else("Asked in another way.")
            .means("By the answer of a Redis server to PING; one that asks for a password is well.")
            .example("true"),
        key("every", Kind::Duration { least: Duration::from_millis(100) })
            .or("2s")
            .means("The time from one check to the next.")
            .example("5s"),
        key("timeout", Kind::Duration { least: MILLISECOND })
            .or("2s")
            .means("A check that takes longer has failed.")
            .example("1s"),
        key("rise", Kind::Whole { least: 1, most: 100 })
            .or("2")
            .means("How many checks in a row must succeed before an endpoint that was down is up.")
            .example("1"),
        key("fall", Kind::Whole { least: 1, most: 100 })
            .or("3")
            .means("How many checks in a row must fail before an endpoint that was up is down.")
            .example("2"),
    ],
    later: &[],
};

pub(crate) static TIMEOUTS: Block = Block {
    path: "upstream.*.timeouts",
    meaning: "How long each thing may take on the side of the endpoints.",
    keys: &[
        key("connect", Kind::Duration { least: MILLISECOND })
            .or("5s")
            .means("For connecting, all tries at all endpoints together.")
            .example("2s"),
        key("acquire", Kind::Duration { least: MILLISECOND })
            .or_else("5s, and 2m with protocol \"postgres\".")
            .means("For waiting until an endpoint has room.")
            .example("10s"),
        key("first_byte", Kind::Duration { least: MILLISECOND })
            .or("60s")
            .means("From the end of a request until its answer begins; else the answer is 504.")
            .example("5m")
            .only(&[Http]),
        key("gap", Kind::Duration { least: MILLISECOND })
            .or("60s")
            .means("How long an answer may stand still while the client would take more.")
            .example("30s")
            .only(&[Http]),
        key("query", Kind::Duration { least: MILLISECOND })
            .or_else("A query may take for ever.")
            .means(
                "How long a query of PostgreSQL may take, its answer included. One that takes longer is \
                 cancelled, and its client is told so (SQLSTATE 57014) and may go on.",
            )
            .example("30s")
            .only(&[Postgres]),
        key("transaction", Kind::Duration { least: MILLISECOND })
            .or_else("A transaction may last for ever.")
            .means(
                "How long a transaction of PostgreSQL may last. One that lasts longer is rolled back, and \
                 its client's connection ends (SQLSTATE 25P04).",
            )
            .example("5m")
            .only(&[Postgres]),
        key("idle_in_transaction", Kind::Duration { least: MILLISECOND })
            .or_else("For as long as the transaction may last.")
            .means(
                "How long a client of PostgreSQL may be silent in the middle of a transaction, in which it \
                 keeps its server from others. Then its connection ends (SQLSTATE 25P03).",
            )
            .example("1m")
            .only(&[Postgres]),
        key("pinned", Kind::Duration { least: MILLISECOND })
            .or_else("For as long as the client is there.")
            .means(
                "How long a client may be silent that keeps its server beyond its transactions because of \
                 something that it left there (temporary tables, advisory locks, cursors WITH HOLD). Then \
                 its connection ends. Of pools with mode \"session\" it says nothing.",
            )
            .example("10m")
            .only(&[Postgres]),
    ],
    later: &[],
};

pub(crate) static POOL: Block = Block {
    path: "upstream.*.pool",
    meaning: "How many connections an upstream may be given, and how many clients may wait for one.",
    keys: &[
        key("size", Kind::Whole { least: 1, most: WHOLE_MAX })
            .or_else("No limit; 20 with protocol \"postgres\".")
            .means("How many connections all endpoints together may have at once, those at rest included.")
            .example("200"),
        key("queue", Kind::Whole { least: 0, most: 1_000_000 })
            .or("1000")
            .means(
                "How many clients may wait for room, first come, first served among the equally important \
                 (see `priority` of routes); the next one is refused.",
            )
            .example("100"),
        key("shed", Kind::Duration { least: MILLISECOND })
            .or_else("Everybody may wait who finds room in the queue.")
            .means(
                "When clients wait longer than this for room on average, the least important are refused at \
                 once (see `priority` of routes), until they do not.",
            )
            .example("20ms"),
        key("idle", Kind::Duration { least: MILLISECOND })
            .or_else("60s, and 10m with protocol \"postgres\".")
            .means("A connection that was not used for so long is closed. Less than the endpoint allows.")
            .example("30s")
            .only(&[Http, Postgres]),
        key("max_age", Kind::Duration { least: MILLISECOND })
            .or("1h")
            .means("A connection that lived for so long (give or take a tenth) is not used again.")
            .example("10m")
            .only(&[Http, Postgres]),
        key("mode", Kind::Words(PoolMode::WORDS))
            .or("transaction")
            .means("What a client of PostgreSQL is lent a connection for.")
            .example("session")
            .only(&[Postgres]),
        key("reset", Kind::Words(PoolReset::WORDS))
            .or("needed")
            .means(
                "What is undone at a server of PostgreSQL before another client gets it. In pools with mode \
                 \"session\" it is everything in any case.",
            )
            .example("always")
            .only(&[Postgres]),
        key("notice", Kind::Either(&[Kind::Words(OFF), Kind::Duration { least: MILLISECOND }]))
            .or("5s")
            .means(
                "A client of PostgreSQL that has waited so long for a server is told so by a NOTICE, once in \
                 each wait: for how long, how many are ahead of it, and who has most of the servers.",
            )
            .example("1s")
            .only(&[Postgres]),
    ],
    later: &[],
};

pub(crate) static RETRY: Block = Block {
    path: "upstream.*.retry",
    meaning: "When another endpoint is tried. A request that was sent is sent again only if it does no harm \
              when done twice, is held whole (64 KiB at most), and nothing was told to its client.",
    keys: &[
        key("attempts", Kind::Whole { least: 0, most: 10 })
            .or("2")
            .means("How many more endpoints are tried after the first.")
            .example("1"),
        key("on", Kind::List(&Kind::Words(RetryOn::WORDS)))
            .or_else("After \"connect\", and after \"reset\" for HTTP.")
            .means("After what another one is tried; other protocols than HTTP know \"connect\" alone.")
            .example(r#"["connect", "reset", "503"]"#)
            .only(&[Http]),
        key("per_try", Kind::Duration { least: MILLISECOND })
            .or_else("Each try has all the time that the request has.")
            .means(
                "A try that has brought no answer for so long is given up for another one, if another one \
                 may be made; the last one has all the time that is left.",
            )
            .example("2s")
            .only(&[Http]),
        key("budget", Kind::Percent)
            .or("20%")
            .means(
                "How many tries more there may be at all, as a share of first tries: an outage must not \
                 multiply the load.",
            )
            .example("10%"),
    ],
    later: &[],
};

pub(crate) static BREAKER: Block = Block {
    path: "upstream.*.breaker",
    meaning: "When the breaker of an endpoint opens: it is asked nothing, then one thing at a time, until \
              one succeeds. What fails is a connection that is not made or breaks, a timeout, and an answer \
              of 502, 503 or 504.",
    keys: &[
        key("requests", Kind::Whole { least: 1, most: 1_000_000 })
            .or("20")
            .means("How many requests there must have been within `window`.")
            .example("50"),
        key("failures", Kind::Percent)
            .or("50%")
            .means("The share of them that must have failed.")
            .example("30%"),
        key("window", Kind::Duration { least: MILLISECOND })
            .or("10s")
            .means("How far back it looks.")
            .example("30s"),
        key("open", Kind::Duration { least: MILLISECOND })
            .or("5s")
            .means("For how long it is open the first time; twice as long after each probe that fails.")
            .example("10s"),
        key("longest", Kind::Duration { least: MILLISECOND })
            .or("60s")
            .means("For how long it is open at most.")
            .example("5m"),
    ],
    later: &[],
};

pub(crate) static HEDGE: Block = Block {
    path: "upstream.*.hedge",
    meaning: "When a second endpoint is asked too. Never while a breaker is open, clients wait for room, or \
              the least important are refused.",
    keys: &[
        key("percentile", Kind::Whole { least: 50, most: 99 })
            .or("95")
            .means("When a request takes longer than so many of each hundred did of late.")
            .example("99"),
        key("budget", Kind::Percent)
            .or("5%")
            .means(
                "For how many requests at most, as a share of all; each is also paid for by `retry.budget`.",
            )
            .example("2%"),
    ],
    later: &[],
};

pub(crate) static OUTLIER: Block = Block {
    path: "upstream.*.outlier",
    meaning: "When an endpoint whose connections fail is left out for a while.",
    keys: &[
        key("failures", Kind::Whole { least: 1, most: 1_000 })
            .or("5")
            .means("After so many failures in a row an endpoint is left out.")
            .example("3"),
        key("eject", Kind::Duration { least: MILLISECOND })
            .or("10s")
            .means("For how long, the first time; longer each time it fails again.")
            .example("30s"),
        key("max", Kind::Percent)
            .or("50%")
            .means("How many endpoints may be left out at once, as a share of all.")
            .example("30%"),
    ],
    later: &[],
};
