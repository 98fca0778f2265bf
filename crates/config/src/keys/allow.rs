//! `allow` of a route.

use crate::key::{Block, Kind, key};

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
                 of [group.NAME]. What proves it is a client certificate (see `client_ca`), or with protocol \
                 \"postgres\" what `auth` asks for, or with protocol \"tunnel\" a token. With `from`, both \
                 must hold.",
            )
            .example(r#"["ana", "group:support"]"#),
    ],
    later: &[],
};
