//! The road of one connection, from accept to release. Read it downwards.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tieline_base::{ClientAddr, Clock, Fault, Proved, Reason, Stage, Whose};
use tieline_policy::Identity;
use tieline_registry::{Opening, Record, Settled};
use tieline_transport::tls::{ServerTls, TlsAcceptError, accept_tls_after};
use tieline_transport::{
    Accepted, Adopted, Front, Hello, Io, QuicError, QuicIncoming, SettleError, accept_quic, settle,
};

use crate::admission::Slot;
use crate::connection::{Connection, First, Outcome, Serving};
use crate::handshakes::Handshakes;
use crate::lifetime::Lifetime;
use crate::snapshot::Listener;
use crate::worker::{Seat, Worker};

/// Walks the whole road. Spawned by the worker's life cycle, nowhere else.
///
/// A function that returns an async block, not an async function: what it is given is then held once, not
/// twice.
pub(crate) fn serve(
    accepted: Accepted,
    listener: Arc<Listener>,
    worker: Rc<Worker>,
) -> impl Future<Output = ()> + 'static {
    // accept: listed before a byte is read
    let record = worker.registry().enter(Opening {
        client: accepted.client,
        listener: listener.row.clone(),
        worker: worker.id(),
        generation: worker.generation(),
        parent: None,
    });
    let seat = Seat::new(worker, record);
    async move {
        let lifetime =
            Lifetime::new(seat.record(), &listener.timeouts, listener.protocol.leaves_when_asked());
        // admit, settle, identify: nothing of it is carried by a connection that is past it
        let mut begun = match begin(accepted, listener, &seat) {
            Ok(begun) => begun,
            Err(fault) => return seat.leave(Err(fault), ()),
        };
        // Both arms may be dropped: the first closes its sockets, the second holds a timer. The protocol
        // comes first: it says what it waits for, and may answer for what did not come.
        let outcome = tokio::select! {
            biased;
            outcome = poll_fn(|cx| begun.poll(cx)) => outcome,
            reason = lifetime => Ok(reason),
        };
        // release: what it held is given back; counted, logged, delisted
        seat.leave(outcome, begun);
    }
}

/// A connection that was admitted: it is being settled, or served already where there was nothing to settle.
enum Begun {
    Settling(Pin<Box<dyn Future<Output = Result<Serving, Fault>>>>),
    Serving(Serving),
}

impl Begun {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            match self {
                Begun::Settling(settling) => *self = Begun::Serving(ready!(settling.as_mut().poll(cx))?),
                Begun::Serving(serving) => return serving.as_mut().poll(cx),
            }
        }
    }
}

fn begin(accepted: Accepted, listener: Arc<Listener>, seat: &Seat) -> Result<Begun, Fault> {
    let (worker, record) = (seat.worker(), seat.record());
    // admit: before a byte is read, and so before any cryptography
    record.enter(Stage::Admit, record.opened());
    let slot = admit(&listener, accepted.client)?;
    let adopted = accepted.adopt().map_err(exhausted)?;

    // settle: the PROXY header, the first bytes and TLS, under one deadline
    record.enter(Stage::Settle, record.opened());
    let io = match adopted {
        Adopted::Io(io) => io,
        Adopted::Quic(incoming) => return Ok(begin_quic(incoming, listener, seat, slot)),
    };
    let front = listener.front();
    let tls_here = listener.tls.is_some() && !listener.protocol.settles_itself();
    if !front.asks() && !tls_here {
        return start(&listener, worker, record, slot, io, None, Identity::Anonymous).map(Begun::Serving);
    }
    let (worker, record) = (worker.clone(), record.clone());
    Ok(Begun::Settling(Box::pin(async move {
        let tls = listener.tls.as_deref().filter(|_| tls_here);
        let (io, mut first) = settled(io, &front, tls, worker.handshakes()).await?;
        let identity = first.take_identity();
        start(&listener, &worker, &record, slot, io, Some(Rc::new(first)), identity)
    })))
}

/// QUIC is settled by its handshake alone.
fn begin_quic(incoming: QuicIncoming, listener: Arc<Listener>, seat: &Seat, slot: Slot) -> Begun {
    let (worker, record) = (seat.worker().clone(), seat.record().clone());
    Begun::Settling(Box::pin(async move {
        // What came in the moment in which a reload took it away is refused.
        let quic = listener.quic.as_ref().ok_or_else(|| refused(Reason::RefusedDraining))?;
        let shaken = async {
            worker.handshakes().turn().await;
            accept_quic(incoming, &quic.server).await
        };
        let shaken = tokio::time::timeout(listener.timeouts.handshake, shaken).await;
        let (io, handshake) = shaken.map_err(|_| unsettled(SettleError::Timeout))?.map_err(unshaken_quic)?;
        let mut first = First { hello: Hello::default(), tls: Some(handshake) };
        let identity = first.take_identity();
        start(&listener, &worker, &record, slot, io, Some(Rc::new(first)), identity)
    }))
}

async fn settled(
    io: Io,
    front: &Front,
    tls: Option<&ServerTls>,
    handshakes: &Handshakes,
) -> Result<(Io, First), Fault> {
    let begun = Clock::now();
    let (io, mut hello) = settle(io, front).await.map_err(unsettled)?;
    let Some(tls) = tls else { return Ok((io, First { hello, tls: None })) };
    let opening = std::mem::take(&mut hello.bytes);
    let left = front.handshake.saturating_sub(Clock::now().since(begun));
    let shaken = tokio::time::timeout(left, accept_tls_after(io, opening, tls, handshakes.turn())).await;
    let (io, handshake) = shaken.map_err(|_| unsettled(SettleError::Timeout))?.map_err(unshaken)?;
    Ok((io, First { hello, tls: Some(handshake) }))
}

/// Hands a settled connection to its protocol.
fn start(
    listener: &Listener,
    worker: &Rc<Worker>,
    record: &Arc<Record>,
    slot: Slot,
    io: Io,
    first: Option<Rc<First>>,
    identity: Identity,
) -> Result<Serving, Fault> {
    if let Some(first) = &first {
        note_first(record, first, &identity);
    }
    let slot = slot.count_source(&listener.limits, record.client()).map_err(refused)?;

    // identify: who was proved; a source address proves nobody
    record.enter(Stage::Identify, Clock::now());
    if let Some(proved) = identity.proved() {
        still_proved(&listener.row.name, listener.tls.as_ref(), worker, proved)?;
    }

    // route, authorize, acquire: `Connection::open`, which the protocol calls for each exchange; relay: the
    // protocol
    let connection = Connection::new(worker, record, identity, first, slot);
    Ok(listener.protocol.serve(connection, io))
}

/// Counts the connection against its listener's limits, cheapest first; the per-source limit waits for the
/// PROXY header where one comes, because the peer is the proxy then.
fn admit(listener: &Listener, peer: ClientAddr) -> Result<Slot, Fault> {
    if listener.admission.is_closed() {
        return Err(refused(Reason::RefusedDraining));
    }
    // Who may connect to a unix socket is decided by its path's permissions: such a peer may speak for
    // others.
    if listener.proxy && peer.ip().is_some_and(|ip| !listener.trusted.contains(ip)) {
        return Err(refused(Reason::RefusedUntrusted));
    }
    let slot = listener.admission.count(&listener.limits).map_err(refused)?;
    let slot =
        if listener.proxy { slot } else { slot.count_source(&listener.limits, peer).map_err(refused)? };
    listener.admission.pace(&listener.limits).map_err(refused)?;
    Ok(slot)
}

fn note_first(record: &Record, first: &First, identity: &Identity) {
    let (proxied, sni) = (first.hello.source.map(ClientAddr::from_socket), first.server_name());
    if proxied.is_some() || sni.is_some() || *identity != Identity::Anonymous {
        let identity = identity.clone();
        record.set_settled(Settled { proxied, sni: sni.map(Into::into), identity, ..Settled::default() });
    }
}

/// What was proved while a reload went on was proved by the authorities and revocations before it: they are
/// asked again if they have changed. From here on the sweep after a reload sees the row and who it is.
pub(crate) fn still_proved(
    listener: &str,
    then: Option<&Arc<ServerTls>>,
    worker: &Worker,
    proved: &Proved,
) -> Result<(), Fault> {
    let revoked = || Fault::new(Stage::Identify, Whose::Client, Reason::Revoked);
    if proved.certificates.is_empty() {
        return Ok(());
    }
    let snapshot = worker.snapshot();
    let current = snapshot.listeners.get(listener).and_then(|listener| listener.tls.as_ref());
    match (current, then) {
        (Some(current), Some(then)) if Arc::ptr_eq(current, then) => Ok(()),
        (Some(current), _) => {
            current.judge_again(&proved.certificates).map_err(|error| revoked().because(error))
        }
        // The listener is gone, or ends TLS no more: its routes decide.
        (None, _) => Ok(()),
    }
}

fn refused(reason: Reason) -> Fault {
    Fault::new(Stage::Admit, Whose::Us, reason)
}

fn exhausted(error: std::io::Error) -> Fault {
    Fault::new(Stage::Admit, Whose::Us, Reason::Exhausted).because(error)
}

pub(crate) fn unshaken(error: TlsAcceptError) -> Fault {
    let reason = match &error {
        TlsAcceptError::Closed => Reason::ClientClosed,
        TlsAcceptError::Io(_) => Reason::ClientReset,
        TlsAcceptError::Refused(_) => Reason::RefusedCertificate,
        TlsAcceptError::Protocol(_) | TlsAcceptError::NoCertificate { .. } => Reason::ProtocolError,
    };
    Fault::new(Stage::Settle, Whose::Client, reason).because(error)
}

fn unshaken_quic(error: QuicError) -> Fault {
    let reason = match &error {
        QuicError::Closed => Reason::ClientClosed,
        QuicError::Silent | QuicError::Io(_) => Reason::ClientReset,
        QuicError::Certificate(_) => Reason::RefusedCertificate,
        QuicError::Protocol(_) | QuicError::NoAddress | QuicError::NoCipher => Reason::ProtocolError,
    };
    Fault::new(Stage::Settle, Whose::Client, reason).because(error)
}

fn unsettled(error: SettleError) -> Fault {
    let reason = match &error {
        SettleError::Timeout => Reason::TimeoutHandshake,
        SettleError::Closed => Reason::ClientClosed,
        SettleError::Io(_) => Reason::ClientReset,
        SettleError::Proxy(_) | SettleError::Hello(_) => Reason::ProtocolError,
    };
    Fault::new(Stage::Settle, Whose::Client, reason).because(error)
}
