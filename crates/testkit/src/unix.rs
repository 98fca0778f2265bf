//! An echo service on a unix socket.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tempfile::TempDir;

/// Sends everything back, half-close included. Dropping it stops accepting; open conversations go on.
pub struct UnixEcho {
    path: PathBuf,
    shared: Arc<(AtomicBool, AtomicUsize)>,
    acceptor: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl UnixEcho {
    /// Listens in a temporary directory.
    pub fn start() -> UnixEcho {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let path = directory.path().join("echo.sock");
        let listener = UnixListener::bind(&path).expect("a fresh temporary directory is writable");
        let shared = Arc::new((AtomicBool::new(false), AtomicUsize::new(0)));
        let for_thread = Arc::clone(&shared);
        let acceptor = Some(std::thread::spawn(move || accept(&listener, &for_thread)));
        UnixEcho { path, shared, acceptor, _directory: directory }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Connections accepted since it started.
    pub fn accepted(&self) -> usize {
        self.shared.1.load(Ordering::Relaxed)
    }
}

impl Drop for UnixEcho {
    fn drop(&mut self) {
        self.shared.0.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path); // wakes the acceptor, which then sees that we end
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &UnixListener, (ending, accepted): &(AtomicBool, AtomicUsize)) {
    for connection in listener.incoming() {
        if ending.load(Ordering::SeqCst) {
            return;
        }
        let Ok(connection) = connection else { continue };
        accepted.fetch_add(1, Ordering::Relaxed);
        std::thread::spawn(move || {
            let copied = io::copy(&mut &connection, &mut &connection);
            copied.and_then(|_| connection.shutdown(Shutdown::Write))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::UnixEcho;
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    #[test]
    fn it_answers_after_the_client_has_shut_its_half_and_is_gone_after_drop() {
        let echo = UnixEcho::start();
        let mut client = UnixStream::connect(echo.path()).unwrap();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!((heard.as_str(), echo.accepted()), ("hello", 1));
        let path = echo.path().to_owned();
        drop(echo);
        assert!(UnixStream::connect(path).is_err());
    }
}
