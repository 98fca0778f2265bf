//! `[listener.NAME]` and what stands in it.

use std::time::Duration;

use Protocol::{Http, Mysql, Postgres, Tcp, Tunnel, Wireguard};

use crate::key::{Block, Kind, WHOLE_MAX, key, of_feature, of_protocols};
use crate::protocol::Protocol;
use crate::words::{AccessWord, OFF, ProxyProtocolIn};

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
        key("limits", Kind::Table(&LIMITS))
            .or_else("There are no limits.")
            .means("How many connections are let in.")
            .example(r#"{ connections = 10000, per_ip = 100, accept_rate = "500/s" }"#),
        key("timeouts", Kind::Table(&TIMEOUTS))
            .or_else("Every key has its default.")
            .means("How long each thing may take.")
            .example(r#"{ handshake = "10s", idle = "1h" }"#),
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
                "Where connections go: one route for every name that clients ask for, or a single one for \
                 all.",
            )
            .example(r#"[{ upstream = "db", access = "public" }]"#),
    ],
    later: &[
        of_feature("tls", "TLS termination"),
        of_protocols("auth", &[Postgres, Mysql]),
        of_protocols("peers", &[Wireguard]),
    ],
};

pub(crate) static LIMITS: Block = Block {
    path: "listener.*.limits",
    meaning: "How many connections a listener lets in. What is beyond a limit is refused before any \
              cryptography.",
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
            .or("1h")
            .means("A connection on which no byte moved either way for so long ends with reason `idle`.")
            .example("15m"),
        key("max_age", Kind::Duration { least: MILLISECOND })
            .or_else("A connection may live for ever.")
            .means("A connection that lived for so long (give or take a tenth) ends with reason `max-age`.")
            .example("24h"),
        key("drain", Kind::Duration { least: Duration::ZERO })
            .or("30s")
            .means("How long live connections may go on when this listener or the server drains.")
            .example("5m"),
    ],
    later: &[
        of_protocols("request_head", &[Http]),
        of_protocols("body_gap", &[Http]),
        of_protocols("min_rate", &[Http]),
        of_protocols("first_byte", &[Http]),
        of_protocols("gap", &[Http]),
        of_protocols("tunnel_idle", &[Http, Tunnel]),
    ],
};

pub(crate) static ROUTE: Block = Block {
    path: "listener.*.route",
    meaning: "What goes where, and for whom. The most exact `sni` wins; the route without one takes what \
              is left.",
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
        key("upstream", Kind::Name).means("The upstream that connections go to.").example("orders"),
        key("access", Kind::Words(AccessWord::WORDS))
            .or("policy")
            .means("Who decides about connections by this route.")
            .example("public"),
        key("allow", Kind::Table(&ALLOW))
            .or_else("Nobody is let in, unless `access` is \"public\".")
            .means("Whom `access = \"policy\"` lets in.")
            .example(r#"{ from = ["10.0.0.0/8"] }"#),
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
    later: &[
        of_feature("priority", "queues by priority"),
        of_protocols("host", &[Http]),
        of_protocols("path", &[Http]),
        of_protocols("method", &[Http]),
        of_protocols("headers", &[Http]),
        of_protocols("database", &[Postgres, Mysql]),
        of_protocols("user", &[Postgres, Mysql]),
    ],
};

pub(crate) static ALLOW: Block = Block {
    path: "listener.*.route.allow",
    meaning: "Whom a route lets in: the short form of a policy.",
    keys: &[key("from", Kind::List(&Kind::Network))
        .or_else("Nobody.")
        .means("The networks and addresses that clients may come from.")
        .example(r#"["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]"#)],
    later: &[of_feature("identity", "logins")],
};
