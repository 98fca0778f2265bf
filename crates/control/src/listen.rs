//! The two doors of the admin API: a unix socket for who shares the machine, and a TCP address for who has
//! the token.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tieline_base::Address;
use tieline_transport::{Acceptor, Adopted, BindError, Bound, Io, ListenOptions};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::api::{self, Caller};
use crate::plane::Plane;

/// The unix socket's name in the data folder.
pub const SOCKET_NAME: &str = "admin.sock";

/// The sockets of the admin API, bound and not yet served: so that a server that cannot be steered never
/// starts.
#[derive(Debug)]
pub struct Doors {
    socket: Bound,
    network: Option<Bound>,
}

impl Doors {
    /// Binds `<data>/admin.sock`, for its owner alone, and `network` if there is one. `data` must exist.
    ///
    /// # Errors
    /// [`BindError`], in one line that says what to do. A socket that a running server listens on is one.
    pub fn bind(data: &Path, network: Option<SocketAddr>) -> Result<Doors, BindError> {
        let path = std::path::absolute(data.join(SOCKET_NAME));
        let path = path.unwrap_or_else(|_| data.join(SOCKET_NAME));
        let options = ListenOptions { keepalive: Some(KEEPALIVE), unix_mode: 0o600 };
        Ok(Doors {
            socket: Bound::bind(&Address::Unix(path), &options)?,
            network: network.map(|network| Bound::bind(&Address::Socket(network), &options)).transpose()?,
        })
    }

    /// Where the network door is: the port that it got, where 0 was asked for.
    pub fn network(&self) -> Option<&Address> {
        self.network.as_ref().map(Bound::address)
    }
}

const KEEPALIVE: Duration = Duration::from_secs(60);

/// How many may be connected to one door at once; the others wait in the kernel. Each door has its own bound,
/// so that a flood from the network does not lock out who stands at the machine.
const CONNECTIONS_MAX: usize = 128;

/// How long a request's head may take, and how long a connection may stay without one.
const HEAD_MAX: Duration = Duration::from_secs(30);

/// How long those who are being answered may still take when the server stops.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Serves the API over `plane` at `doors`, on the current runtime, until `done` resolves.
///
/// # Errors
/// When the kernel cannot watch the sockets.
pub async fn serve(plane: Plane, doors: Doors, done: impl Future<Output = ()>) -> io::Result<()> {
    let (closing, closed) = watch::channel(false);
    let router = TowerToHyperService::new(api::router(plane.clone()));
    let mut tasks = JoinSet::new();
    for bound in std::iter::once(&doors.socket).chain(&doors.network) {
        let door = Door { acceptor: Acceptor::new(bound)?, router: router.clone(), closed: closed.clone() };
        tasks.spawn(door.attend());
    }
    let watching = plane.clone();
    let mut watcher = JoinSet::new();
    watcher.spawn(async move { watching.watch_endpoints().await });
    done.await;
    // Nobody may be left to hear it.
    let _ = closing.send(true);
    let gone = async { while tasks.join_next().await.is_some() {} };
    // The doors' tasks hold their connections': whoever is not done by then is dropped with them.
    let _ = tokio::time::timeout(GOODBYE_MAX, gone).await;
    Ok(())
}

type Routes = TowerToHyperService<axum::Router>;

struct Door {
    acceptor: Acceptor,
    router: Routes,
    closed: watch::Receiver<bool>,
}

/// How long accepting pauses when this machine has run out of something.
const EXHAUSTION_PAUSE: Duration = Duration::from_millis(50);

impl Door {
    async fn attend(self) {
        let mut closed = self.closed.clone();
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            // Every arm may be dropped: an accepted connection is returned or still in the queue.
            tokio::select! {
                _ = closed.wait_for(|closed| *closed) => break,
                _ = connections.join_next(), if !connections.is_empty() => {}
                next = self.next(&places) => {
                    let Some((io, place)) = next else { continue };
                    let (router, closed) = (self.router.clone(), self.closed.clone());
                    connections.spawn(async move {
                        converse(io, router, closed).await;
                        drop(place);
                    });
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }

    /// The next connection and its place; none if this one came to nothing.
    async fn next(&self, places: &Arc<Semaphore>) -> Option<(Io, tokio::sync::OwnedSemaphorePermit)> {
        let place = places.clone().acquire_owned().await.ok()?;
        match self.acceptor.accept().await.and_then(|accepted| accepted.adopt()) {
            Ok(Adopted::Io(io)) => Some((io, place)),
            // Nothing is bound for it here.
            Ok(Adopted::Quic(_)) => None,
            Err(error) => {
                tracing::warn!(%error, "cannot accept at the admin API; trying again");
                tokio::time::sleep(EXHAUSTION_PAUSE).await;
                None
            }
        }
    }
}

/// Serves one connection to its end, or to the end of the request in hand once the door has `closed`.
async fn converse(io: Io, router: Routes, mut closed: watch::Receiver<bool>) {
    let Some(caller) = caller(&io) else { return };
    let answer = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller);
        let answering = router.call(request);
        async move { answering.await.map(|response: Response<Body>| response) as Result<_, Infallible> }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES_MAX);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(io), answer));
    // Both arms may be dropped: one is pinned outside and goes on below, the other only looks.
    let done = tokio::select! {
        done = connection.as_mut() => Some(done),
        _ = closed.wait_for(|closed| *closed) => None,
    };
    let ended = match done {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection broke");
    }
}

/// The most that is read ahead: a request's head, with room.
const HEAD_BYTES_MAX: usize = 64 * 1_024;

/// Who is at the other end; nobody, if the kernel will not say.
fn caller(io: &Io) -> Option<Caller> {
    match io {
        Io::Unix(unix) => {
            let peer = rustix::net::sockopt::socket_peercred(unix.as_fd()).ok()?;
            Some(Caller::Peer { uid: peer.uid.as_raw() })
        }
        Io::Tcp(_) | Io::Tls(_) | Io::Stream(_) => Some(Caller::Network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scene, TOKEN};
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;
    use tokio::sync::oneshot;

    /// A served plane in a folder of its own, and the way to end it.
    struct Served {
        folder: tempfile::TempDir,
        network: SocketAddr,
        done: oneshot::Sender<()>,
        serving: std::thread::JoinHandle<()>,
    }

    fn serve_apart() -> Served {
        let folder = tempfile::tempdir().unwrap();
        let doors = Doors::bind(folder.path(), Some("127.0.0.1:0".parse().unwrap())).unwrap();
        let Some(Address::Socket(network)) = doors.network().cloned() else { panic!("no network door") };
        let (done, ended) = oneshot::channel();
        let serving = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let scene = Scene::new();
            runtime.block_on(serve(scene.plane, doors, async { drop(ended.await) })).unwrap();
        });
        Served { folder, network, done, serving }
    }

    /// The whole answer to `GET path`, asked over `stream` with `fields`.
    fn ask(mut stream: impl Read + Write, path: &str, fields: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn who_stands_at_the_machine_needs_no_token_and_who_comes_by_the_network_does() {
        let served = serve_apart();
        let socket = || UnixStream::connect(served.folder.path().join(SOCKET_NAME)).unwrap();
        let network = || TcpStream::connect(served.network).unwrap();
        assert!(ask(socket(), "/api/v1/status", "").starts_with("HTTP/1.1 200 "));
        assert!(ask(network(), "/api/v1/status", "").starts_with("HTTP/1.1 401 "));
        assert!(ask(network(), "/healthz", "").starts_with("HTTP/1.1 200 "));
        let token = format!("Authorization: Bearer {TOKEN}\r\n");
        assert!(ask(network(), "/api/v1/status", &token).starts_with("HTTP/1.1 200 "));
        drop(served.done);
        served.serving.join().unwrap();
    }

    #[test]
    fn a_flood_at_the_network_door_leaves_the_socket_open() {
        let served = serve_apart();
        let _flood: Vec<_> =
            (0..2 * CONNECTIONS_MAX).map(|_| TcpStream::connect(served.network).unwrap()).collect();
        let socket = UnixStream::connect(served.folder.path().join(SOCKET_NAME)).unwrap();
        assert!(ask(socket, "/api/v1/status", "").starts_with("HTTP/1.1 200 "));
        drop(served.done);
        served.serving.join().unwrap();
    }

    #[test]
    fn the_end_does_not_wait_for_who_only_listens_and_takes_the_socket_along() {
        let served = serve_apart();
        let path = served.folder.path().join(SOCKET_NAME);
        let mut events = UnixStream::connect(&path).unwrap();
        events.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut first = [0; 64];
        events.read_exact(&mut first).unwrap();
        drop(served.done);
        served.serving.join().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_second_server_in_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Doors::bind(folder.path(), None).unwrap();
        let error = Doors::bind(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("another process listens there"), "{error}");
    }
}
