//! The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), with the costly part done beforehand: the load
//! must not be what takes the time.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use data_encoding::BASE64;
use tieline_testkit::pg::{Conversation, Message, frontend};

const ITERATIONS: u32 = 4096;
const SALT: &[u8; 16] = b"salt of a bench.";
/// Nobody's secrets are kept here, so a nonce need not be new.
const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";

/// A password, as both sides know it.
pub(crate) struct Secret {
    salted: [u8; 32],
}

impl Secret {
    pub(crate) fn of(password: &str) -> Secret {
        let mut salted = [0; 32];
        let rounds = NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, SALT, password.as_bytes(), &mut salted);
        Secret { salted }
    }

    /// What a server keeps.
    pub(crate) fn verifier(&self) -> String {
        let stored = BASE64.encode(digest::digest(&digest::SHA256, &self.client_key()).as_ref());
        let server = BASE64.encode(&mac(&self.salted, b"Server Key"));
        format!("SCRAM-SHA-256${ITERATIONS}:{}${stored}:{server}", BASE64.encode(SALT))
    }

    fn client_key(&self) -> Vec<u8> {
        mac(&self.salted, b"Client Key")
    }

    /// Begins to log in as `postgres`.
    pub(crate) fn begin(&self, pooler: SocketAddr) -> io::Result<Login<'_>> {
        let mut client = Conversation::connect(pooler);
        let parameters = [("user", "postgres"), ("database", "postgres")];
        client.send(&frontend::startup(frontend::V3_0, &parameters))?;
        Ok(Login { secret: self, client })
    }
}

/// A login under way; each step waits for an answer and says what comes next.
pub(crate) struct Login<'s> {
    secret: &'s Secret,
    client: Conversation,
}

impl Login<'_> {
    /// Says who it is.
    pub(crate) fn introduce(&mut self) -> io::Result<()> {
        expect(&mut self.client, 10)?;
        let first = format!("n,,{}", first());
        let length = i32::try_from(first.len()).unwrap_or(0).to_be_bytes();
        let body = [b"SCRAM-SHA-256\0", &length[..], first.as_bytes()].concat();
        self.client.send(&frontend::message(b'p', &body))
    }

    /// Proves it.
    pub(crate) fn prove(&mut self) -> io::Result<()> {
        let server_first = expect(&mut self.client, 11)?;
        let nonce =
            server_first.split(',').next().and_then(|part| part.strip_prefix("r=")).unwrap_or_default();
        let last = format!("c=biws,r={nonce}");
        let signed = format!("{},{server_first},{last}", first());
        let key = self.secret.client_key();
        let signature = mac(digest::digest(&digest::SHA256, &key).as_ref(), signed.as_bytes());
        let proof: Vec<u8> = key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
        let body = format!("{last},p={}", BASE64.encode(&proof));
        self.client.send(&frontend::message(b'p', body.as_bytes()))
    }

    /// Is let in.
    pub(crate) fn finish(mut self) -> io::Result<Conversation> {
        expect(&mut self.client, 12)?;
        match self.client.until(b'Z')?.last() {
            Some(ready) if ready.kind == b'Z' => Ok(self.client),
            other => Err(io::Error::other(format!("no login: {other:?}"))),
        }
    }
}

fn first() -> String {
    format!("n=,r={NONCE}")
}

/// The data of an authentication message of this kind.
fn expect(client: &mut Conversation, kind: u8) -> io::Result<String> {
    match client.message()? {
        Some(Message { kind: b'R', body }) if body.starts_with(&[0, 0, 0, kind]) => {
            Ok(String::from_utf8_lossy(&body[4..]).into_owned())
        }
        other => Err(io::Error::other(format!("no step {kind} of SCRAM: {other:?}"))),
    }
}

fn mac(key: &[u8], data: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::Secret;
    use tieline_testkit::{Cluster, PgBouncer};

    #[test]
    fn a_server_that_keeps_the_verifier_lets_it_in() {
        let secret = Secret::of("a password");
        let postgres = Cluster::default().start();
        let port = postgres.address().port();
        let database = format!("postgres = host=127.0.0.1 port={port}");
        let settings = [("auth_type", "scram-sha-256"), ("pool_mode", "transaction")];
        let user = format!("\"postgres\" \"{}\"", secret.verifier());
        let bouncer = PgBouncer::start(&[&database], &settings, &[&user]);
        let log_in = |secret: &Secret| {
            let mut login = secret.begin(bouncer.address())?;
            login.introduce()?;
            login.prove()?;
            login.finish()
        };
        assert_eq!(log_in(&secret).unwrap().value("select 6 * 7"), "42");
        assert!(log_in(&Secret::of("another")).is_err());
    }
}
