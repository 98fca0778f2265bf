//! LISTEN for clients that share servers: one connection listens for all whose servers are the same, and each
//! client hears what it listens to, wherever its transactions run.
//!
//! What a client listens to is the server's to say, as with all that a transaction leaves behind: a client's
//! server listens to the client's channels for as long as it holds it, so that LISTEN, UNLISTEN and what
//! undoes them mean what they always do; behind the transaction it is asked, and the shared listener follows
//! before the client is told that the server is ready. `hub.rs` is that listener, `inbox.rs` what waits for
//! one client, `ears.rs` the client's side.

mod ears;
mod hub;
mod inbox;

use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) use ears::{Between, Ears, begin, follow, told};
pub(crate) use hub::APPLICATION;

/// Names of channels, as a server gives them.
pub(crate) type Channels = Arc<BTreeSet<Box<[u8]>>>;

/// So many channels are listened to for one client; who wants more keeps its server.
const CHANNELS_MAX: usize = 256;

/// Appends LISTEN for each of `channels`.
fn push_listen<'c>(sql: &mut Vec<u8>, channels: impl IntoIterator<Item = &'c Box<[u8]>>) {
    channels.into_iter().for_each(|channel| push_named(sql, b"LISTEN ", channel));
}

/// Appends `verb` and a name, quoted.
fn push_named(sql: &mut Vec<u8>, verb: &[u8], name: &[u8]) {
    sql.extend_from_slice(verb);
    sql.push(b'"');
    for byte in name {
        if *byte == b'"' {
            sql.push(b'"');
        }
        sql.push(*byte);
    }
    sql.extend_from_slice(b"\";");
}

#[cfg(test)]
mod tests {
    use super::push_listen;

    #[test]
    fn names_are_names_and_nothing_else() {
        let mut sql = Vec::new();
        push_listen(&mut sql, [&b"a\"; drop table x; --"[..].into(), &b"B"[..].into()]);
        assert_eq!(sql, b"LISTEN \"a\"\"; drop table x; --\";LISTEN \"B\";");
    }
}
