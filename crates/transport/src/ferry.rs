//! Bytes that the kernel moves from one socket to another, so that they never enter this process.

use std::cell::Cell;
use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;

use crate::Io;
use crate::pipe::Pipe;

thread_local! {
    /// How many pipes ferries hold.
    static OUT: Cell<usize> = const { Cell::new(0) };
}

/// How many pipes the ferries of a worker hold at once: each is two descriptors, and pages that are full
/// until a slow receiver has taken them.
const OUT_MAX: usize = 128;

/// What was taken from one plain socket and not yet by another one. While it carries nothing it owns nothing.
#[derive(Debug, Default)]
pub struct Ferry(Option<Pipe>);

impl Ferry {
    /// Whether the kernel can move the bytes of `from` to `to` by itself.
    pub fn joins(from: &Io, to: &Io) -> bool {
        from.is_plain() && to.is_plain()
    }

    /// Whether it carries nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Takes what `from` has, `most` bytes (more than 0) at most: how many, 0 at its end. `None`: no pipe is
    /// to be had now, and the bytes must go another way. It must be empty, and both ends plain.
    pub fn poll_load(
        &mut self,
        from: &Io,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<usize>>> {
        // Before a pipe is taken: who waits needs none.
        if let Err(error) = ready!(from.poll_ready(Interest::READABLE, cx)) {
            return Poll::Ready(Some(Err(error)));
        }
        if OUT.get() >= OUT_MAX {
            return Poll::Ready(None);
        }
        let Ok(mut pipe) = Pipe::take() else { return Poll::Ready(None) };
        OUT.set(OUT.get() + 1);
        let loaded = pipe.poll_fill(from, most, cx);
        self.0 = Some(pipe);
        self.let_go();
        loaded.map(Some)
    }

    /// Hands what it carries to `to`, which must be plain, as much as that takes at once: how many bytes.
    ///
    /// # Errors
    /// `to` takes nothing any more.
    pub fn poll_unload(&mut self, to: &Io, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(pipe) = &mut self.0 else { return Poll::Ready(Ok(0)) };
        let unloaded = ready!(pipe.poll_drain(to, cx))?;
        self.let_go();
        Poll::Ready(Ok(unloaded))
    }

    /// Gives the pipe back if it is empty.
    fn let_go(&mut self) {
        if let Some(pipe) = self.0.take_if(|pipe| pipe.held() == 0) {
            OUT.set(OUT.get().saturating_sub(1));
            pipe.give_back();
        }
    }
}

impl Drop for Ferry {
    fn drop(&mut self) {
        if self.0.is_some() {
            OUT.set(OUT.get().saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, Io) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let near = listener.accept().unwrap().0;
        near.set_nonblocking(true).unwrap();
        (far, Io::Tcp(tokio::net::TcpStream::from_std(near).unwrap()))
    }

    async fn load(ferry: &mut Ferry, from: &Io, most: usize) -> Option<usize> {
        poll_fn(|cx| ferry.poll_load(from, most, cx)).await.map(Result::unwrap)
    }

    #[tokio::test]
    async fn it_takes_no_more_than_it_may_and_brings_all_of_it() {
        let ((mut sender, from), (mut receiver, to)) = (pair(), pair());
        assert!(Ferry::joins(&from, &to));
        sender.write_all(b"body, and what is behind it").unwrap();
        let mut ferry = Ferry::default();
        assert_eq!(load(&mut ferry, &from, 4).await, Some(4));
        assert!(!ferry.is_empty());
        assert_eq!(poll_fn(|cx| ferry.poll_unload(&to, cx)).await.unwrap(), 4);
        assert!(ferry.is_empty());
        let mut heard = [0; 4];
        receiver.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"body");
        drop(sender);
        assert_eq!(load(&mut ferry, &from, 64).await, Some(23));
    }

    #[tokio::test]
    async fn a_worker_holds_so_many_pipes_and_no_more() {
        let (mut sender, from) = pair();
        sender.write_all(&[7; OUT_MAX + 1]).unwrap();
        let mut held: Vec<Ferry> = Vec::new();
        for _ in 0..OUT_MAX {
            let mut ferry = Ferry::default();
            assert_eq!(load(&mut ferry, &from, 1).await, Some(1));
            held.push(ferry);
        }
        let mut one_more = Ferry::default();
        assert_eq!(load(&mut one_more, &from, 1).await, None);
        held.pop();
        assert_eq!(load(&mut one_more, &from, 1).await, Some(1));
    }
}
