//! The sockets of UDP at which one worker takes clients of QUIC.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tieline_transport::QuicAcceptor;
use tokio::task::JoinHandle;

use crate::snapshot::{Listener, Snapshot};
use crate::turns::Turns;
use crate::worker::{ACCEPTS_PER_TURN, Worker};

#[derive(Default)]
pub(crate) struct QuicDoors(HashMap<SocketAddr, Door>);

struct Door {
    acceptor: Rc<QuicAcceptor>,
    listener: Rc<RefCell<Arc<Listener>>>,
    accepting: JoinHandle<()>,
}

impl QuicDoors {
    /// Accepts where `snapshot` says, and where this worker is the one to do it.
    pub(crate) fn follow(&mut self, worker: &Rc<Worker>, snapshot: &Snapshot) {
        let mut wanted = HashMap::new();
        for listener in snapshot.listeners.values() {
            let Some(quic) = &listener.quic else { continue };
            for (bound, _) in quic.doors.iter().filter(|(_, by)| *by == worker.id()) {
                wanted.insert(bound.address(), (bound, &quic.server, listener));
            }
        }
        // Clients that come to one that is gone are refused.
        self.0.retain(|at, _| wanted.contains_key(at));
        for (address, (bound, server, listener)) in wanted {
            if let Some(door) = self.0.get(&address) {
                door.acceptor.renew(server);
                door.listener.replace(listener.clone());
                continue;
            }
            match QuicAcceptor::new(bound, server) {
                Ok(acceptor) => drop(self.0.insert(address, Door::open(worker, acceptor, listener.clone()))),
                Err(error) => tracing::error!(%address, %error, "cannot watch a socket of UDP"),
            }
        }
    }

    pub(crate) fn close_all(&mut self) {
        self.0.clear();
    }
}

impl Door {
    #[allow(clippy::disallowed_methods)] // it lives as long as the door
    fn open(worker: &Rc<Worker>, acceptor: QuicAcceptor, listener: Arc<Listener>) -> Door {
        let (acceptor, listener) = (Rc::new(acceptor), Rc::new(RefCell::new(listener)));
        let accepting =
            tokio::task::spawn_local(accept_all(worker.clone(), acceptor.clone(), listener.clone()));
        Door { acceptor, listener, accepting }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.acceptor.close();
        self.accepting.abort();
    }
}

async fn accept_all(worker: Rc<Worker>, acceptor: Rc<QuicAcceptor>, listener: Rc<RefCell<Arc<Listener>>>) {
    let mut turns = Turns::of(ACCEPTS_PER_TURN);
    while let Some(accepted) = acceptor.accept().await {
        let listening = listener.borrow().clone();
        worker.place(accepted, listening);
        turns.did().await;
    }
}
