//! Closed sets of words: each word, its meaning and its type in one place.

use std::fmt;

/// One word that a key takes, and what it means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// The word as it is written in the file.
    pub word: &'static str,
    /// What it means, in one sentence.
    pub meaning: &'static str,
}

macro_rules! words {
    ($(#[doc = $doc:literal])+ $vis:vis $name:ident {
        $(#[doc = $first:literal] $variant:ident = $word:literal,)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        $vis enum $name {
            $(#[doc = $first] $variant,)+
        }

        impl $name {
            /// Every word, with its meaning.
            $vis const WORDS: &'static [Word] = &[$(Word { word: $word, meaning: $first.trim_ascii() },)+];

            /// The word for it.
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }

            /// What `word` stands for.
            $vis fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some($name::$variant),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

// A macro so that a word, its meaning for users and its name in the code stand together and cannot part.
words! {
    /// How much the server's own log says.
    pub LogLevel {
        /// Only what went wrong.
        Error = "error",
        /// And what may go wrong.
        Warn = "warn",
        /// And what an operator wants to know: starts, reloads, drains.
        Info = "info",
        /// And every decision.
        Debug = "debug",
        /// And every step.
        Trace = "trace",
    }
}

words! {
    /// How the server's own log is written.
    pub LogFormat {
        /// Lines for people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// Whether connections begin with a PROXY protocol header that names their true client.
    pub(crate) ProxyProtocolIn {
        /// No header; one that comes is the client's own bytes.
        Off = "off",
        /// A header of version 1 or 2, from `trusted` sources only; everybody else is refused.
        Required = "required",
    }
}

words! {
    /// The PROXY protocol header that an upstream is sent.
    pub ProxyProtocolOut {
        /// None.
        Off = "off",
        /// Version 1, a line of text.
        V1 = "v1",
        /// Version 2, binary.
        V2 = "v2",
    }
}

words! {
    /// What clients that log in are asked for.
    pub Auth {
        /// A password, by SCRAM-SHA-256: it is never sent, and the verifier is of no use to who steals it.
        Scram = "scram",
        /// A password, by MD5 for users whose verifier is of that kind, by SCRAM-SHA-256 for others.
        Md5 = "md5",
        /// A certificate of their own whose name is that of the user; needs `client_ca`.
        Certificate = "certificate",
        /// Nothing. For loopback addresses and unix sockets alone.
        Trust = "trust",
    }
}

words! {
    /// What a server is lent for.
    pub PoolMode {
        /// A client keeps its server as long as it is connected.
        Session = "session",
        /// For one transaction: between two of them a server serves others.
        Transaction = "transaction",
        /// For one statement: transactions of several are refused.
        Statement = "statement",
    }
}

words! {
    /// What is undone at a server before another client gets it.
    pub PoolReset {
        /// What its client left there, as far as its SQL shows that it may have left something.
        Needed = "needed",
        /// After every transaction all but prepared statements, also what functions changed from within.
        Always = "always",
    }
}

words! {
    /// What a server is to the others that hold the same data.
    pub Role {
        /// It is asked.
        Auto = "auto",
        /// It takes writes.
        Primary = "primary",
        /// It can be read from alone.
        Replica = "replica",
    }
}

words! {
    /// Which of the servers that hold the same data a route leads to.
    pub RouteRole {
        /// The one that takes writes.
        Primary = "primary",
        /// One that can be read from alone.
        Replica = "replica",
        /// Any.
        Any = "any",
    }
}

words! {
    /// What a route that leads to the primary leaves to replicas.
    pub ReplicaReads {
        /// Nothing.
        Off = "off",
        /// Transactions that are said to only read.
        Transactions = "transactions",
        /// Those, and single statements that surely only read.
        Statements = "statements",
    }
}

words! {
    /// What becomes of reads for which no replica is fit.
    pub Fallback {
        /// The primary serves them.
        Primary = "primary",
        /// They wait for one.
        Wait = "wait",
    }
}

words! {
    /// What endpoints speak, where connections to them have a login of their own.
    pub(crate) UpstreamProtocol {
        /// PostgreSQL.
        Postgres = "postgres",
    }
}

words! {
    /// What becomes of clients that show no certificate.
    pub(crate) ClientWord {
        /// They are refused.
        Required = "required",
        /// They are let in, unproved; one that shows a wrong certificate is refused.
        Optional = "optional",
    }
}

words! {
    /// How endpoints are spoken to.
    pub(crate) UpstreamTlsWord {
        /// Without TLS.
        Off = "off",
        /// By TLS; their certificate is for their name and signed by a root that the system trusts.
        VerifyFull = "verify-full",
        /// By TLS, whatever their certificate, as PostgreSQL's `sslmode=require` has it.
        Require = "require",
        /// By TLS, whatever their certificate.
        Insecure = "insecure",
    }
}

words! {
    /// How TLS with servers of PostgreSQL begins.
    pub(crate) Negotiation {
        /// They are asked for it in their own words.
        Request = "request",
        /// At once: they speak nothing else.
        Direct = "direct",
    }
}

words! {
    /// What endpoints are spoken to in.
    pub HttpVersion {
        /// HTTP/1.1.
        One = "1.1",
        /// HTTP/2: agreed on by TLS, or without TLS spoken at once.
        Two = "2",
        /// What TLS agrees on with each endpoint, HTTP/2 preferred.
        Auto = "auto",
    }
}

words! {
    /// What of an endpoint's certificate is verified.
    pub Verify {
        /// Its name, its dates and its signatures.
        Full = "full",
        /// Nothing.
        None = "none",
    }
}

words! {
    /// Who decides about a route's connections.
    pub(crate) AccessWord {
        /// Everybody is let in.
        Public = "public",
        /// Nobody is let in whom `allow` does not name.
        Policy = "policy",
    }
}

words! {
    /// How important what comes by a route is.
    pub(crate) PriorityWord {
        /// Served as long as anything is.
        Critical = "critical",
        /// Before the usual.
        High = "high",
        /// The usual.
        Normal = "normal",
        /// What can wait, or be done another time.
        Low = "low",
    }
}

words! {
    /// How an endpoint is chosen.
    pub(crate) BalanceWord {
        /// The faster of two random endpoints, judged by connect time and live connections.
        PeakEwma = "peak-ewma",
        /// The one with the fewest live connections for its weight.
        LeastRequests = "least-requests",
        /// Each in turn, as often as its weight says.
        RoundRobin = "round-robin",
        /// Any, as often as its weight says.
        Random = "random",
        /// The same one for the same client, as long as it is up and not overloaded.
        Hash = "hash",
    }
}

words! {
    /// By which fields upstreams are told where a request comes from.
    pub Tell {
        /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Real-IP`.
        XForwarded = "x-forwarded",
        /// `Forwarded` (RFC 7239).
        Forwarded = "forwarded",
        /// All of them.
        Both = "both",
    }
}

words! {
    /// What becomes of requests that do not keep to a document.
    pub ApiMode {
        /// They are refused, and told what is wrong.
        Enforce = "enforce",
        /// They pass, and are counted and noted.
        Report = "report",
    }
}

words! {
    /// What a link may go over.
    pub Carrier {
        /// QUIC, over UDP: best where it passes.
        Quic = "quic",
        /// TLS, over TCP.
        Tls = "tls",
        /// TLS inside a WebSocket, as HTTPS over TCP: for networks in which somebody looks into TLS.
        WebSocket = "websocket",
    }
}

words! {
    /// After what a request is sent to another endpoint.
    pub RetryOn {
        /// No connection was made; nothing was sent, so that any request is tried again.
        Connect = "connect",
        /// The connection broke before a byte of the answer came.
        Reset = "reset",
        /// No byte of the answer came within `per_try`, or within the upstream's `first_byte`.
        Timeout = "timeout",
        /// The answer was 429 Too Many Requests.
        TooMany = "429",
        /// The answer was 500 Internal Server Error.
        Internal = "500",
        /// The answer was 502 Bad Gateway.
        BadGateway = "502",
        /// The answer was 503 Service Unavailable.
        Unavailable = "503",
        /// The answer was 504 Gateway Timeout.
        GatewayTimeout = "504",
    }
}

words! {
    /// What becomes of parameters of a query that a document does not name.
    pub(crate) UnknownQuery {
        /// The request is refused.
        Refuse = "refuse",
        /// They pass.
        Pass = "pass",
    }
}

words! {
    /// What a bandwidth is shared by.
    pub BandwidthPer {
        /// Each request has it for itself, and with other protocols each connection.
        Exchange = "exchange",
        /// All that one client asks for shares it (an IPv6 /64 counts as one).
        Ip = "ip",
        /// All that goes by the route shares it.
        Route = "route",
    }
}

words! {
    /// How much may be in flight at an upstream.
    pub(crate) ConcurrencyWord {
        /// As much as `pool.size` and `connections` let through.
        Fixed = "fixed",
        /// As much as it does without becoming slower, as its answers tell; never more than those.
        Adaptive = "adaptive",
    }
}

words! {
    /// Where the access log goes, where that is no file.
    pub(crate) AccessLogWord {
        /// The standard output.
        Stdout = "stdout",
        /// Nowhere.
        Off = "off",
        /// The system's log, by /dev/log.
        Syslog = "syslog",
    }
}

words! {
    /// What of a listener goes to the access log.
    pub Logged {
        /// Each exchange by itself, and connections that came to none.
        Exchanges = "exchanges",
        /// Connections as a whole.
        Connections = "connections",
        /// Nothing.
        Nothing = "off",
    }
}

/// The word for TLS without files.
pub(crate) const SELF_SIGNED: &[Word] = &[Word {
    word: "self-signed",
    meaning: "By a certificate made at the start, which no client trusts: to try things out.",
}];

/// The word for nothing, where something else could stand.
pub(crate) const OFF: &[Word] = &[Word { word: "off", meaning: "Switched off." }];

/// The word for a number that the machine decides.
pub(crate) const AUTO: &[Word] = &[Word { word: "auto", meaning: "One for each core." }];
