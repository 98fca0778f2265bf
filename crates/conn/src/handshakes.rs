//! When the costly part of a TLS handshake may run.

use tokio::sync::{Notify, Semaphore};

/// The handshakes of one worker, one behind the other. Signing and key agreement take as long as dozens of
/// requests, and a thread does one thing at a time: when hundreds of handshakes are ready at once, everybody
/// else would wait for all of them. So one runs, then whatever else is ready, then the next, first come,
/// first served. What waits meanwhile is a socket and a hello, under `timeouts.handshake`.
#[derive(Debug)]
pub(crate) struct Handshakes {
    turn: Semaphore,
    taken: Notify,
}

impl Handshakes {
    pub(crate) fn new() -> Self {
        Self { turn: Semaphore::new(1), taken: Notify::new() }
    }

    /// Waits until it is the caller's turn, which lasts until it awaits something else.
    pub(crate) async fn turn(&self) {
        // It is never closed.
        if let Ok(turn) = self.turn.acquire().await {
            turn.forget();
            self.taken.notify_one();
        }
    }

    /// Gives the turn to the next when all that was ready has had its own: for as long as the worker works.
    pub(crate) async fn keep(&self) {
        loop {
            self.taken.notified().await;
            // The runtime looks for what has become ready before it comes back from this.
            tokio::task::yield_now().await;
            self.turn.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use std::time::Duration;

    use super::Handshakes;

    /// Runs on a runtime as a worker has one.
    fn on_a_worker(test: impl AsyncFnOnce()) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.unwrap().block_on(test());
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // tasks of a test
    fn others_get_their_turn_between_two_handshakes() {
        on_a_worker(async || {
            let handshakes = Rc::new(Handshakes::new());
            let keeping = handshakes.clone();
            tokio::task::spawn_local(async move { keeping.keep().await });
            let (order, done) = (Rc::new(RefCell::new(String::new())), Rc::new(Cell::new(0)));
            for _ in 0..8 {
                let (handshakes, order, done) = (handshakes.clone(), order.clone(), done.clone());
                tokio::task::spawn_local(async move {
                    handshakes.turn().await;
                    order.borrow_mut().push('h');
                    done.set(done.get() + 1);
                });
            }
            // Somebody who is ready again and again, as an exchange is whose bytes keep coming.
            while done.get() < 8 {
                order.borrow_mut().push('.');
                tokio::task::yield_now().await;
            }
            let order = order.borrow().clone();
            assert!(!order.contains("hh"), "{order}");
        });
    }

    #[test]
    fn who_gives_up_waiting_keeps_nobody_waiting() {
        on_a_worker(async || {
            let handshakes = Handshakes::new();
            handshakes.turn().await;
            let gave_up = tokio::time::timeout(Duration::from_millis(1), handshakes.turn()).await;
            assert!(gave_up.is_err());
            let served = async { handshakes.turn().await };
            tokio::select! {
                () = handshakes.keep() => {}
                () = served => {}
            }
        });
    }
}
