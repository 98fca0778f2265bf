//! Kernel pipes: what holds spliced bytes between two sockets.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;

use crate::Io;

/// How much one splice asks for; also the size wished for each pipe, in bytes. Larger pipes mean fewer system
/// calls; much larger ones fall out of the processor's cache and let one connection starve its neighbours.
pub(crate) const PIPE_SIZE: usize = 256 * 1024;

/// How many empty pipes a worker keeps for the next bulk transfer.
const KEPT_PER_WORKER: usize = 32;

thread_local! {
    static EMPTY: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe and how many bytes are in it.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl Pipe {
    /// An empty pipe of this worker, or a new one.
    pub(crate) fn take() -> io::Result<Pipe> {
        EMPTY.with_borrow_mut(Vec::pop).map_or_else(Pipe::new, Ok)
    }

    /// Gives the pipe back for others, if it is empty; else its bytes die with it.
    pub(crate) fn give_back(self) {
        EMPTY.with_borrow_mut(|empty| {
            if self.held == 0 && empty.len() < KEPT_PER_WORKER {
                empty.push(self);
            }
        });
    }

    /// How many bytes are in it.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Moves what `from`, which is plain, has into the pipe, up to `most` bytes and [`PIPE_SIZE`]: 0 at its
    /// end. The pipe must be empty: one that is full would be taken for a sender that has nothing.
    pub(crate) fn poll_fill(
        &mut self,
        from: &Io,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(from.poll_ready(Interest::READABLE, cx))?;
            match from.try_plain(Interest::READABLE, |socket| self.fill(&socket, most.min(PIPE_SIZE))) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => return Poll::Ready(moved),
            }
        }
    }

    /// Moves what the pipe holds into `to`, which is plain, as much as it takes.
    pub(crate) fn poll_drain(&mut self, to: &Io, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(to.poll_ready(Interest::WRITABLE, cx))?;
            match to.try_plain(Interest::WRITABLE, |socket| self.drain(&socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => return Poll::Ready(moved),
            }
        }
    }

    fn fill(&mut self, from: &impl AsFd, most: usize) -> io::Result<usize> {
        let moved = splice(from.as_fd(), None, &self.write, None, most, FLAGS)?;
        self.held += moved;
        Ok(moved)
    }

    fn drain(&mut self, to: &impl AsFd) -> io::Result<usize> {
        let moved = splice(&self.read, None, to.as_fd(), None, self.held, FLAGS)?;
        self.held -= moved;
        Ok(moved)
    }

    fn new() -> io::Result<Pipe> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // An unprivileged user has a budget of pipe pages: when it is spent, the default size must do.
        let _ = fcntl_setpipe_size(&write, PIPE_SIZE);
        Ok(Pipe { read, write, held: 0 })
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);
