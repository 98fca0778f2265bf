//! Caps of endpoints and upstreams, as the endpoints themselves count.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tieline_testkit::{HttpConversation, PATIENCE, wait_until};

use crate::origin::OK;
use crate::site::{HTTP, Site, request};
use crate::support::OneRoute;

/// Connections that may still be open, over all endpoints that share it, and the most there ever were.
#[derive(Default)]
struct Count {
    // Test servers run on plain threads; the lock is held for a look at each connection.
    #[allow(clippy::disallowed_types)]
    open: std::sync::Mutex<Vec<(TcpStream, Arc<AtomicBool>)>>,
    most: AtomicUsize,
    accepted: AtomicUsize,
}

impl Count {
    /// Counts `stream`, after those were taken out that either end has closed. `over` says that ours did:
    /// what was sent to it since is read by nobody, and would hide that the peer has closed too.
    fn enter(&self, stream: TcpStream, over: Arc<AtomicBool>) {
        let mut open = self.open.lock().unwrap();
        open.push((stream, over));
        self.accepted.fetch_add(1, Ordering::SeqCst);
        // On a busy machine the kernel may hear on one core of the next connection before it has heard on
        // another of the end of the one before. Who is really there is still there in a moment.
        for _ in 0..400 {
            open.retain(|(stream, over)| {
                let peeked = recv(stream, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT);
                let closed = matches!(peeked, Ok((0, _)) | Err(rustix::io::Errno::CONNRESET));
                !closed && !over.load(Ordering::SeqCst)
            });
            if open.len() <= self.most() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.most.fetch_max(open.len(), Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// An HTTP server that counts, and takes a moment for each answer. It lasts as long as the test.
fn counting(count: &Arc<Count>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::clone(count);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let over = Arc::new(AtomicBool::new(false));
            count.enter(stream.try_clone().unwrap(), Arc::clone(&over));
            thread::spawn(move || {
                let _ = serve(stream);
                over.store(true, Ordering::SeqCst);
            });
        }
    });
    address
}

fn serve(stream: TcpStream) -> io::Result<()> {
    let mut client = HttpConversation::over(stream);
    while let Some(asked) = client.request()? {
        thread::sleep(Duration::from_micros(500));
        client.send(OK)?;
        if asked.target() == "/last" {
            break;
        }
    }
    client.stream().shutdown(std::net::Shutdown::Both)
}

/// Clients that ask one thing after the other, some over connections of their own for each, some so that the
/// endpoint closes.
fn load(site: &Site) {
    thread::scope(|scope| {
        for number in 0..10 {
            scope.spawn(move || {
                let mut client = site.connect();
                for at in 0..40 {
                    if (number + at) % 7 == 0 {
                        client = site.connect();
                    }
                    let target = if (number * 40 + at) % 29 == 0 { "/last" } else { "/" };
                    assert_eq!(client.ask(&request(target, &[])).status, 200, "{number}, {at}");
                }
            });
        }
    });
}

#[test]
fn an_endpoint_never_sees_one_connection_more_than_its_cap() {
    let count = Arc::new(Count::default());
    let address = counting(&count);
    let endpoint = format!("{{ address = \"{address}\", connections = 3 }}");
    let config = OneRoute { upstream: "timeouts = { acquire = \"30s\" }", ..HTTP };
    let site = Site::start(&config.to_endpoints(&[endpoint]));
    load(&site);
    // A look that takes a moment may miss that it was reached, but not that it was passed.
    assert!((2..=3).contains(&count.most()), "{} at once", count.most());
    let accepted = count.accepted.load(Ordering::SeqCst);
    // 14 were closed by the endpoint; a worker that needs a place takes it from what rests with another.
    assert!(accepted <= 200, "{accepted} connections for 400 requests");
}

#[test]
fn all_endpoints_together_never_see_one_more_than_the_size_of_the_pool() {
    let count = Arc::new(Count::default());
    let addresses = [counting(&count), counting(&count), counting(&count)];
    let upstream = "pool = { size = 4 }\ntimeouts = { acquire = \"30s\" }";
    let site = Site::start(&OneRoute { upstream, ..HTTP }.to(&addresses));
    load(&site);
    assert!((2..=4).contains(&count.most()), "{} at once", count.most());
    let idle = || site.tieline.get("/api/v1/pools")[0]["idle"].as_u64().unwrap();
    assert!(wait_until(PATIENCE, || idle() <= 4 && idle() > 0), "{} rest", idle());
}

#[test]
fn who_waits_is_served_by_importance() {
    let (hold, held) = mpsc::sync_channel::<()>(0);
    #[allow(clippy::disallowed_types)]
    let held = std::sync::Mutex::new(held);
    let (asked, order) = mpsc::channel();
    let origin = crate::origin::raw(move |mut client| {
        while let Some(request) = client.request()? {
            let _ = asked.send(request.target().to_owned());
            let _ = held.lock().unwrap().recv();
            client.send(OK)?;
        }
        Ok(())
    });
    let mut routes = String::new();
    for priority in ["critical", "high", "normal", "low"] {
        routes += &format!(
            "[[listener.web.route]]\npath = \"/{priority}\"\nupstream = \"one\"\naccess = \"public\"\n\
             priority = \"{priority}\"\n"
        );
    }
    let pool = "pool = { size = 1, queue = 4 }\ntimeouts = { acquire = \"60s\" }";
    let upstream = format!("[upstream.one]\nendpoints = [\"{}\"]\n{pool}\n", origin.address());
    let site = Site::with_routes(&(routes + &upstream));
    let waiting = || site.tieline.get("/api/v1/pools")[0]["waiting"].as_u64().unwrap();
    let mut clients = Vec::new();
    let mut ask = |target: &str, expected: u64| {
        let mut client = site.connect();
        client.send(request(target, &[])).unwrap();
        clients.push(client);
        assert!(wait_until(PATIENCE, || waiting() == expected), "{target}: {} wait", waiting());
    };
    ask("/normal/first", 0);
    assert_eq!(order.recv_timeout(PATIENCE).unwrap(), "/normal/first");
    ask("/low/a", 1);
    ask("/low/b", 2);
    ask("/normal/c", 3);
    ask("/high/d", 4);
    // The line is full: the newest of the least important goes for one that is more important.
    ask("/critical/e", 4);
    assert_eq!(clients[2].answer("GET").unwrap().status, 503);
    assert_eq!(site.reason("/low/b"), "limit:shed");
    for expected in ["/critical/e", "/high/d", "/normal/c", "/low/a"] {
        hold.send(()).unwrap();
        assert_eq!(order.recv_timeout(PATIENCE).unwrap(), expected);
    }
    hold.send(()).unwrap();
    assert_eq!(clients[1].answer("GET").unwrap().status, 200);
}
