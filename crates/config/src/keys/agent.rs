//! `[agent]` and `[offer.NAME]`.

use crate::key::{Block, Kind, key};
use crate::words::Carrier;

pub(crate) static AGENT: Block = Block {
    path: "agent",
    meaning: "Which server an agent dials, and as whom. The file is read by `tieline agent run`.",
    keys: &[
        key("server", Kind::OneOrMore(&Kind::Endpoint))
            .means(
                "The listener of protocol \"tunnel\" to dial, or two addresses that lead to it. What \
                 connects is always the agent, and keeps a link to each: a new stream goes over one that is \
                 up. The same address twice is two links to it.",
            )
            .example("gate.example.com:7443"),
        key("carriers", Kind::List(&Kind::Words(Carrier::WORDS)))
            .or_else("All of them.")
            .means(
                "What the link may go over. Whichever is open is found out by trying them, QUIC first; one \
                 that is left out is never tried.",
            )
            .example(r#"["quic", "tls"]"#),
        key("proxy", Kind::Endpoint)
            .or_else(
                "What `HTTPS_PROXY` in the environment says, or `https_proxy`, unless `NO_PROXY` names the \
                 server.",
            )
            .means(
                "The proxy that leads out of the network by CONNECT. TLS and WebSockets go through it; QUIC \
                 goes past it.",
            )
            .example("http://proxy.plant-7.internal:3128"),
        key("proxy_user", Kind::Text)
            .or_else("The proxy does not want to know who asks.")
            .means("As whom the proxy is asked (Basic).")
            .example("plant-7"),
        key("proxy_password_file", Kind::Path)
            .or_else("`proxy_user` has no password.")
            .means(
                "The file of the password of `proxy_user`, readable by nobody else; a line break at its end \
                 is not part of it.",
            )
            .example("proxy.pw"),
        key("folder", Kind::Path)
            .means("The folder of the agent's key and certificate, which `tieline agent join` made.")
            .example("plant-7"),
    ],
    later: &[],
};

pub(crate) static OFFER: Block = Block {
    path: "offer.*",
    meaning: "A service that an agent offers. NAME is what the server calls it.",
    keys: &[key("to", Kind::Service)
        .means(
            "Where the service is, seen from the agent. Only this address is dialed for it. `udp:` before it \
             makes it one of datagrams, which `tieline connect --listen udp:ADDRESS` reaches.",
        )
        .example("127.0.0.1:22")],
    later: &[],
};
