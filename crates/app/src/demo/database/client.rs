//! A small client: it logs in by SCRAM-SHA-256, and runs one query after the other.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use tieline_wire::postgres::authentication::{Demand, push_sasl_initial, push_sasl_response};
use tieline_wire::postgres::backend::kind;
use tieline_wire::postgres::frontend::{push_query, push_startup};
use tieline_wire::postgres::scram::client::{Channel, Exchange};
use tieline_wire::postgres::scram::{NONCE_BYTES, SCRAM_SHA_256, derive};

/// A connection that is logged in.
pub(super) struct Client(TcpStream);

/// The longest message that anybody here sends.
const MESSAGE_MAX: usize = 1 << 20;

impl Client {
    /// Logs in.
    ///
    /// # Errors
    /// Nobody is there, or the server says no.
    pub(super) fn log_in(at: SocketAddr, user: &str, password: &str, database: &str) -> io::Result<Client> {
        let mut client = Client(TcpStream::connect(at)?);
        let mut out = Vec::new();
        let said = [(&b"user"[..], user.as_bytes()), (b"database", database.as_bytes())];
        push_startup(&mut out, said.into_iter().chain([(&b"application_name"[..], &b"demo"[..])]));
        client.0.write_all(&out)?;
        client.prove(password)?;
        client.hear(kind::READY_FOR_QUERY)?;
        Ok(client)
    }

    fn prove(&mut self, password: &str) -> io::Result<()> {
        let mut nonce = [0; NONCE_BYTES];
        fastrand::fill(&mut nonce);
        let (exchange, first) = Exchange::begin(Channel::Unable, &nonce);
        self.hear(kind::AUTHENTICATION)?;
        let mut out = Vec::new();
        push_sasl_initial(&mut out, SCRAM_SHA_256, first.as_bytes());
        self.0.write_all(&out)?;
        let challenge = exchange.hear(sasl(&self.hear(kind::AUTHENTICATION)?)?).map_err(io::Error::other)?;
        let keys = derive(password.as_bytes(), &challenge.salt, challenge.iterations);
        let (unverified, last) = challenge.prove(&keys);
        out.clear();
        push_sasl_response(&mut out, last.as_bytes());
        self.0.write_all(&out)?;
        unverified.verify(sasl(&self.hear(kind::AUTHENTICATION)?)?).map_err(io::Error::other)
    }

    /// Runs `sql`, and throws its rows away.
    ///
    /// # Errors
    /// The server says no, or is gone.
    pub(super) fn query(&mut self, sql: &str) -> io::Result<()> {
        let mut out = Vec::new();
        push_query(&mut out, sql.as_bytes());
        self.0.write_all(&out)?;
        self.hear(kind::READY_FOR_QUERY).map(drop)
    }

    /// The body of the next message of this `kind`; what comes before it is passed over.
    fn hear(&mut self, kind: u8) -> io::Result<Vec<u8>> {
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head)?;
            let [said, length @ ..] = head;
            let length = u32::from_be_bytes(length).saturating_sub(4) as usize;
            if length > MESSAGE_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut body = vec![0; length];
            self.0.read_exact(&mut body)?;
            match said {
                said if said == kind => return Ok(body),
                kind::ERROR_RESPONSE => return Err(io::Error::other("the server says no")),
                _ => {}
            }
        }
    }
}

/// What the server says of the exchange.
fn sasl(body: &[u8]) -> io::Result<&[u8]> {
    match Demand::read(body) {
        Some(Demand::SaslContinue(said) | Demand::SaslFinal(said)) => Ok(said),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
