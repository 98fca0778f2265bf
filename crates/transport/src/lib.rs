//! How bytes travel: sockets, PROXY headers, splice; the only user of tokio::net and the only home of unsafe.
