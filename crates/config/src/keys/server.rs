//! `[server]` and `[admin]`.

use std::time::Duration;

use crate::key::{Block, Kind, key, of_feature};
use crate::words::{AUTO, AccessLogWord, LogFormat, LogLevel, OFF};

pub(crate) static SERVER: Block = Block {
    path: "server",
    meaning: "What concerns the process as a whole.",
    keys: &[
        key("data", Kind::Path)
            .or("tieline-data")
            .means(
                "The folder of the embedded store, sockets and keys; created with mode 0700. Changing it \
                 needs a restart.",
            )
            .example("/var/lib/tieline"),
        key("workers", Kind::Either(&[Kind::Words(AUTO), Kind::Whole { least: 1, most: 256 }]))
            .or("auto")
            .means("How many threads carry connections. Changing it needs a restart.")
            .example("4"),
        key("history", Kind::Duration { least: Duration::ZERO })
            .or("10m")
            .means("How long finished connections can still be listed and shown.")
            .example("1h"),
        key("history_rows", Kind::Whole { least: 0, most: 1_000_000 })
            .or("10000")
            .means("How many finished connections are kept at most, whatever their age.")
            .example("50000"),
        key(
            "access_log",
            Kind::Either(&[Kind::Words(AccessLogWord::WORDS), Kind::FilePath, Kind::SyslogPath]),
        )
        .or("stdout")
        .means(
            "Where the access log goes: one JSON object for each exchange. A file is opened again on \
                 SIGHUP. `syslog` is the daemon at /dev/log; `syslog:/path` is one at another socket.",
        )
        .example("file:/var/log/tieline/access.log"),
        key("log", Kind::Words(LogLevel::WORDS))
            .or("info")
            .means("How much the server's own log says; it goes to the standard error.")
            .example("debug"),
        key("log_format", Kind::Words(LogFormat::WORDS))
            .or("text")
            .means("How the server's own log is written. Changing it needs a restart.")
            .example("json"),
        key("dns", Kind::Table(&DNS))
            .or_else("The system's servers are asked, and every key has its default.")
            .means("How the names of endpoints are resolved.")
            .example(r#"{ servers = ["10.0.0.2"], min_ttl = "5s" }"#),
    ],
    later: &[],
};

pub(crate) static DNS: Block = Block {
    path: "server.dns",
    meaning: "How the names of endpoints are resolved. A name is asked for again when its TTL has passed.",
    keys: &[
        key("servers", Kind::List(&Kind::Socket { port: Some(53) }))
            .or_else("The servers of /etc/resolv.conf.")
            .means("The name servers to ask, in this order; the port may be left out where it is 53.")
            .example(r#"["10.0.0.2:53", "10.0.0.3"]"#),
        key("min_ttl", Kind::Duration { least: Duration::ZERO })
            .or("1s")
            .means("An answer is used for at least so long, even if its TTL is shorter.")
            .example("5s"),
        key("max_ttl", Kind::Duration { least: Duration::from_secs(1) })
            .or("1h")
            .means("An answer is used for at most so long, even if its TTL is longer.")
            .example("5m"),
    ],
    later: &[],
};

pub(crate) static ADMIN: Block = Block {
    path: "admin",
    meaning: "Where operators and their tools reach the server, besides the socket in the data folder.",
    keys: &[
        key("listen", Kind::Either(&[Kind::Words(OFF), Kind::Socket { port: None }]))
            .or("127.0.0.1:7070")
            .means(
                "Where the API, /metrics, /healthz and /readyz are served. All but /healthz ask for the \
                 token in the data folder's admin.token. Changing it needs a restart.",
            )
            .example("127.0.0.1:7070"),
        key("hosts", Kind::List(&Kind::ServerName))
            .or_else("IP addresses and localhost alone.")
            .means(
                "By which names the API may be asked for, besides IP addresses and localhost. Any other name \
                 may be one that a stranger's page made the browser of an operator ask for.",
            )
            .example(r#"["tieline.internal.example.com"]"#),
    ],
    later: &[of_feature("tls", "TLS termination"), of_feature("oidc", "logins")],
};
