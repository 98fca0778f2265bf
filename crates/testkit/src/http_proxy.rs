//! A proxy of HTTP that leads out of a network by CONNECT, and may want to know who asks.

#![allow(clippy::disallowed_types)] // plain threads of a test's own

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::ports::loopback;

/// Leads wherever it is asked to, for as long as it is there.
pub struct HttpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// What must stand behind `Proxy-Authorization:`.
    login: Option<String>,
    ending: AtomicBool,
    connected: AtomicUsize,
    refused: AtomicUsize,
    living: Mutex<Vec<TcpStream>>,
}

impl HttpProxy {
    /// One that asks nobody.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn start() -> HttpProxy {
        Self::asking(None)
    }

    /// One that lets those through alone who say `login`, as it stands in `Proxy-Authorization`.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn asking(login: Option<&str>) -> HttpProxy {
        let listener = TcpListener::bind(loopback(0)).expect("there is a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared { login: login.map(str::to_owned), ..Shared::default() });
        let accepting = shared.clone();
        std::thread::spawn(move || accept(&listener, &accepting));
        HttpProxy { address, shared }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many it led on.
    pub fn connected(&self) -> usize {
        self.shared.connected.load(Ordering::SeqCst)
    }

    /// How many it did not.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// Cuts all that live.
    pub fn cut(&self) {
        let mut living = self.shared.living.lock().unwrap_or_else(PoisonError::into_inner);
        living.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the acceptor, which then sees that we end
        self.cut();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for near in listener.incoming() {
        if shared.ending.load(Ordering::SeqCst) {
            return;
        }
        let Ok(near) = near else { continue };
        let shared = shared.clone();
        // Whoever breaks off needs no answer.
        std::thread::spawn(move || drop(lead(near, &shared)));
    }
}

fn lead(near: TcpStream, shared: &Shared) -> io::Result<()> {
    // Byte by byte: what follows the head is not ours.
    let mut reader = BufReader::with_capacity(1, near.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        lines.push(line);
    }
    let field = |name: &str| {
        let found = lines.iter().filter_map(|line| line.split_once(": ")).find(|(named, _)| *named == name);
        found.map(|(_, value)| value.trim_end().to_owned())
    };
    let mut near_writer = &near;
    if shared.login.is_some() && field("Proxy-Authorization") != shared.login {
        shared.refused.fetch_add(1, Ordering::SeqCst);
        return near_writer.write_all(
            b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"out\"\r\n\
              Content-Length: 0\r\nConnection: close\r\n\r\n",
        );
    }
    let target = lines.first().and_then(|line| line.strip_prefix("CONNECT ")).unwrap_or_default();
    let target = target.strip_suffix(" HTTP/1.1\r\n").unwrap_or_default();
    let Ok(far) = TcpStream::connect(target) else {
        shared.refused.fetch_add(1, Ordering::SeqCst);
        return near_writer.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    };
    shared.connected.fetch_add(1, Ordering::SeqCst);
    near_writer.write_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 out\r\n\r\n")?;
    let ends = [near.try_clone()?, far.try_clone()?];
    shared.living.lock().unwrap_or_else(PoisonError::into_inner).extend(ends);
    let (back_from, back_to) = (far.try_clone()?, near.try_clone()?);
    std::thread::spawn(move || pass(&back_from, &back_to));
    pass(&near, &far);
    Ok(())
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let mut piece = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::HttpProxy;
    use crate::TcpServer;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn asked(proxy: &HttpProxy, head: &str) -> String {
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        client.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn it_leads_who_may_where_something_is() {
        let echo = TcpServer::echo();
        let proxy = HttpProxy::asking(Some("Basic YTpi"));
        let connect = format!("CONNECT {} HTTP/1.1\r\n", echo.address());
        assert_eq!(asked(&proxy, &format!("{connect}\r\n")), "HTTP/1.1 407");
        let login = "Proxy-Authorization: Basic YTpi\r\n\r\n";
        assert_eq!(asked(&proxy, &format!("CONNECT 127.0.0.1:1 HTTP/1.1\r\n{login}")), "HTTP/1.1 502");
        assert_eq!(asked(&proxy, &format!("{connect}{login}")), "HTTP/1.1 200");
        assert_eq!((proxy.connected(), proxy.refused()), (1, 2));
    }
}
