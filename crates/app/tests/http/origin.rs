//! An HTTP server of a test's own, which hands the test what it was asked.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};

use tieline_testkit::{HttpConversation, HttpMessage, PATIENCE, TcpServer};

/// What most tests need no more than.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server that answers every request as the test wants.
pub(crate) struct Origin {
    server: TcpServer,
    asked: Receiver<HttpMessage>,
}

impl Origin {
    /// Answers each request with the bytes that `answer` makes, over connections that stay open.
    pub(crate) fn start(answer: impl Fn(&HttpMessage) -> Vec<u8> + Send + Sync + 'static) -> Origin {
        let (sender, asked) = channel();
        let server = TcpServer::scripted(move |stream| {
            let mut client = HttpConversation::over(stream.try_clone()?);
            while let Some(request) = client.request()? {
                let bytes = answer(&request);
                let _ = sender.send(request); // the test may have seen enough
                client.send(bytes)?;
            }
            Ok(())
        });
        Origin { server, asked }
    }

    /// Answers [`OK`].
    pub(crate) fn ok() -> Origin {
        Origin::start(|_| OK.into())
    }

    /// Answers with one text of its own.
    pub(crate) fn saying(text: &'static str) -> Origin {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
        Origin::start(move |_| format!("{head}{text}").into_bytes())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How many connections it has now.
    pub(crate) fn open(&self) -> usize {
        self.server.open()
    }

    /// How many connections were made to it.
    pub(crate) fn accepted(&self) -> usize {
        self.server.accepted()
    }

    /// The next request that it got.
    #[track_caller]
    pub(crate) fn asked(&self) -> HttpMessage {
        self.asked.recv_timeout(PATIENCE).expect("the origin was asked")
    }

    /// The next request that it got, if there is one.
    pub(crate) fn try_asked(&self) -> Option<HttpMessage> {
        self.asked.try_recv().ok()
    }

    /// Whether it got no request beside those that were looked at.
    pub(crate) fn is_unasked(&self) -> bool {
        self.asked.try_recv().is_err()
    }
}

/// A server that does anything with each connection.
pub(crate) fn raw(script: impl Fn(HttpConversation) -> io::Result<()> + Send + Sync + 'static) -> TcpServer {
    TcpServer::scripted(move |stream| script(HttpConversation::over(stream.try_clone()?)))
}
