//! What clients and servers of PostgreSQL say of who they are.

use std::num::NonZeroU32;
use std::sync::OnceLock;

use tieline_wire::postgres::authentication::{Demand, password, sasl_initial};
use tieline_wire::postgres::scram::{Keys, NONCE_BYTES, client, derive, server};

const OWN: [u8; NONCE_BYTES] = [7; NONCE_BYTES];
const HASH: &[u8] = &[9; 32];

/// The first byte says who speaks, and what TLS there is. Nobody is let in who does not know the password,
/// no server is believed that does not know it, and what is read reads the same when it is written.
pub fn postgres_login(data: &[u8]) {
    let Some((&choice, said)) = data.split_first() else { return };
    match choice % 4 {
        0 => demand(said),
        1 => answer(said),
        2 => client_of_scram(choice & 4 != 0, said),
        _ => server_of_scram(said),
    }
}

fn demand(body: &[u8]) {
    let Some(demand) = Demand::read(body) else { return };
    let mut written = Vec::new();
    demand.push(&mut written);
    assert_eq!(Demand::read(&written[5..]), Some(demand));
}

fn answer(body: &[u8]) {
    if let Some(password) = password(body) {
        assert!(!password.contains(&0));
    }
    if let Some((mechanism, said)) = sasl_initial(body) {
        assert!(!mechanism.contains(&0));
        assert_eq!(mechanism.len() + 1 + 4 + said.len(), body.len());
    }
}

/// The first message of a client, and behind a line break its last.
fn client_of_scram(bound: bool, said: &[u8]) {
    let (first, last) = halves(said);
    let verifier = pencil().verifier(b"salt", NonZeroU32::MIN);
    let channel = server::Channel::Bindable(HASH);
    let Ok((exchange, answer)) = server::Exchange::begin(first, bound, channel, verifier, &OWN) else {
        return;
    };
    assert!(answer.len() < 1_000 && answer.is_ascii());
    // Its nonce is drawn after what a client says here, in the world as well as in the mutations of a seed.
    if let Ok(proved) = exchange.finish(last) {
        assert_eq!(proved.keys, pencil());
    }
}

/// The first message of a server, and behind a line break its last.
fn server_of_scram(said: &[u8]) {
    let (first, last) = halves(said);
    let (exchange, ours) = client::Exchange::begin(client::Channel::Bound(HASH), &OWN);
    assert!(ours.len() < 1_000 && ours.is_ascii());
    let Ok(challenge) = exchange.hear(first) else { return };
    let (unverified, answer) = challenge.prove(&pencil());
    assert!(answer.len() < 1_000 && answer.is_ascii());
    assert!(unverified.verify(last).is_err(), "a server that knows nothing was believed");
}

fn halves(said: &[u8]) -> (&[u8], &[u8]) {
    let at = said.iter().position(|byte| *byte == b'\n').unwrap_or(said.len());
    (&said[..at], said.get(at + 1..).unwrap_or_default())
}

fn pencil() -> Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| derive(b"pencil", b"salt", NonZeroU32::MIN)).clone()
}
