//! `limits` of a listener: how much of what it lets in.

use tieline_base::Bytes;

use crate::key::{Block, Kind, WHOLE_MAX, key};
use crate::protocol::Protocol::{Http, Postgres};

/// A head is held in memory as a whole, for every request that is being read.
const HEAD: Kind = Kind::Size { least: Bytes(1 << 10), most: Bytes(1 << 20) };

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
        key("per_user", Kind::Whole { least: 1, most: WHOLE_MAX })
            .or_else("No limit.")
            .means(
                "How many clients may be logged in at once as one user, counted over all listeners and \
                 databases; `user.connections` says otherwise for one. One more is refused with SQLSTATE \
                 53300, and reason `limit:per-user`.",
            )
            .example("200")
            .only(&[Postgres]),
        key("per_database", Kind::Whole { least: 1, most: WHOLE_MAX })
            .or_else("No limit.")
            .means(
                "How many clients may be logged in at once to one database, as they call it, counted over \
                 all listeners and users; `connections` of its route says otherwise for one. One more is \
                 refused with SQLSTATE 53300, and reason `limit:per-database`.",
            )
            .example("1000")
            .only(&[Postgres]),
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
        key("validated_bodies", Kind::Size { least: Bytes(1), most: Bytes(1 << 40) })
            .or("256MiB")
            .means(
                "How much memory all bodies may take together that are held because an `api` checks them; a \
                 request whose body finds no room is answered with 503.",
            )
            .example("64MiB")
            .only(&[Http]),
    ],
    later: &[],
};
