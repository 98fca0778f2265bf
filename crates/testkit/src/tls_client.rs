//! The openssl command line as a TLS client that stays.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, PoisonError};
use std::thread;

use crate::program::program;
use crate::wait::{PATIENCE, wait_until};

/// Held for a copy or a push, by the threads of one test.
#[allow(clippy::disallowed_types)]
type Text = std::sync::Mutex<String>;

/// A running `openssl s_client`: what it is told goes to the server, and what both say is kept.
pub struct TlsClient {
    child: Child,
    input: Option<ChildStdin>,
    output: Arc<Text>,
}

impl TlsClient {
    /// Connects to `address` with these arguments.
    ///
    /// # Panics
    /// If openssl is not installed.
    #[track_caller]
    pub fn connect<S: AsRef<OsStr>>(
        address: SocketAddr,
        arguments: impl IntoIterator<Item = S>,
    ) -> TlsClient {
        let mut command = Command::new(program("openssl"));
        command.args(["s_client", "-ign_eof", "-connect", &address.to_string()]).args(arguments);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap_or_else(|error| panic!("openssl does not start: {error}"));
        let output = Arc::default();
        follow(child.stdout.take(), &output);
        follow(child.stderr.take(), &output);
        TlsClient { input: child.stdin.take(), child, output }
    }

    /// Sends `text`, and waits until as many answers as were asked for hold `expected`.
    ///
    /// # Panics
    /// With all that was said, if they do not.
    #[track_caller]
    pub fn ask(&mut self, text: &str, expected: &str) {
        let before = self.output().matches(expected).count();
        self.send(text);
        let came = wait_until(PATIENCE, || self.output().matches(expected).count() > before);
        assert!(came, "no {expected:?} in answer to {text:?}:\n{}", self.output());
    }

    /// Sends `text`, to a server that may be gone.
    pub fn send(&mut self, text: &str) {
        if let Some(input) = &mut self.input {
            let _ = input.write_all(text.as_bytes()).and_then(|()| input.flush());
        }
    }

    /// Waits until both have said `expected`.
    ///
    /// # Panics
    /// With all that was said, if they do not.
    #[track_caller]
    pub fn await_output(&self, expected: &str) {
        let said = wait_until(PATIENCE, || self.output().contains(expected));
        assert!(said, "no {expected:?}:\n{}", self.output());
    }

    /// Waits until the server has ended the connection.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn await_end(&mut self) -> String {
        let ended = wait_until(PATIENCE, || {
            // Who follows what it says holds the text until there is no more.
            matches!(self.child.try_wait(), Ok(Some(_))) && Arc::strong_count(&self.output) == 1
        });
        assert!(ended, "the connection goes on:\n{}", self.output());
        self.output()
    }

    /// All that the server and openssl have said.
    pub fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for TlsClient {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(pipe: Option<impl Read + Send + 'static>, output: &Arc<Text>) {
    let (Some(mut pipe), output) = (pipe, Arc::clone(output)) else { return };
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut piece) {
            let text = String::from_utf8_lossy(&piece[..count]);
            output.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
    });
}
