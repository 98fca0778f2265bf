//! What goes to servers is encrypted wherever it is asked for, requests to cancel as well.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use tieline_testkit::pg::{Conversation, frontend};
use tieline_testkit::{Authority, Cluster, PATIENCE, Pair, Postgres, TcpServer, Tieline, wait_until};

use crate::login::psql;

/// Passes on what comes and goes, and keeps what each client began with.
struct Wire {
    server: TcpServer,
    heard: Receiver<Vec<u8>>,
}

impl Wire {
    fn to(server: SocketAddr) -> Wire {
        let (kept, heard) = channel();
        let server = TcpServer::scripted(move |client| pass(client, server, &kept));
        Wire { server, heard }
    }

    /// The first bytes of all connections since it was asked last.
    fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.try_iter().collect()
    }
}

/// The length of an SSLRequest.
const FIRST: usize = 8;

fn pass(mut client: &TcpStream, server: SocketAddr, kept: &Sender<Vec<u8>>) -> io::Result<()> {
    let mut first = vec![0; FIRST];
    client.read_exact(&mut first)?;
    let mut far = TcpStream::connect(server)?;
    far.write_all(&first)?;
    let _ = kept.send(first);
    let (mut back, mut near) = (far.try_clone()?, client.try_clone()?);
    let answering = std::thread::spawn(move || {
        let _ = io::copy(&mut back, &mut near);
        near.shutdown(Shutdown::Write)
    });
    let _ = io::copy(&mut client, &mut far);
    let _ = far.shutdown(Shutdown::Write);
    let _ = answering.join();
    Ok(())
}

/// A server that only those come to who encrypt, and its authority.
fn server() -> (Postgres, Authority, Pair) {
    let authority = Authority::new();
    let pair = authority.server(&["localhost", "127.0.0.1"]);
    let sql = &["create role app login superuser"][..];
    let access = &["hostssl all app 127.0.0.1/32 trust"][..];
    let cluster = Cluster { sql, access, certificate: Some(&pair), ..Cluster::default() };
    (cluster.start(), authority, pair)
}

/// A listener without TLS, before `endpoint`; `tls` is that of the upstream.
fn before(endpoint: SocketAddr, tls: &str) -> (Tieline, SocketAddr) {
    let tieline = Tieline::start(&format!(
        "[listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
         [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n\
         [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{endpoint}\"]\nuser = \"app\"\n\
         timeouts = {{ acquire = \"15s\" }}\ntls = {{ {tls} }}\n"
    ));
    let address = tieline.listener_address("db");
    (tieline, address)
}

/// Has a client wait for long in a server, which `server` itself sees, and cancels that.
#[track_caller]
fn cancel_one(address: SocketAddr, server: &Postgres) {
    let mut client = Conversation::log_in(address, "ana", "postgres");
    client.send(&frontend::query("select pg_sleep(600)")).unwrap();
    let runs = "select count(*) from pg_stat_activity where query = 'select pg_sleep(600)' \
                and state = 'active'";
    assert!(wait_until(PATIENCE, || server.query(runs) == "1"));
    Conversation::connect(address).send(&frontend::cancel(client.key_data())).unwrap();
    let answer = client.until(b'Z').unwrap();
    assert!(answer.iter().any(|message| message.kind == b'E' && message.field(b'C') == "57014"));
    assert_eq!(client.value("select 'and goes on'"), "and goes on");
}

#[test]
fn a_cancel_is_encrypted_as_its_session_is() {
    let (postgres, authority, _) = server();
    let wire = Wire::to(postgres.address());
    let ca = authority.ca();
    let (_tieline, address) = before(wire.server.address(), &format!("ca = \"{}\"", ca.display()));
    cancel_one(address, &postgres);
    let heard = wire.heard();
    // The session's, and the request's.
    assert!(heard.len() >= 2, "{heard:?}");
    let asks = frontend::request(frontend::SSL_REQUEST);
    assert!(heard.iter().all(|first| *first == asks), "something was said in the clear: {heard:?}");
}

#[test]
fn tls_begins_at_once_with_servers_that_take_it_so() {
    let (postgres, authority, pair) = server();
    let ca = authority.ca().display().to_string();
    // PostgreSQL does so from version 17 on; whatever version this is, Tieline does.
    let taking = Tieline::start(&format!(
        "[listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
         tls = {{ certificate = \"{}\", key = \"{}\" }}\n\
         [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n\
         [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{}\"]\ntls = {{ ca = \"{ca}\" }}\n",
        pair.certificate.display(),
        pair.key.display(),
        postgres.address(),
    ));
    let wire = Wire::to(taking.listener_address("db"));
    let direct = format!("ca = \"{ca}\", negotiation = \"direct\"");
    let (_tieline, address) = before(wire.server.address(), &direct);
    assert_eq!(psql(address, "ana", "select session_user", &[]).expect("psql"), "app");
    cancel_one(address, &postgres);
    let heard = wire.heard();
    const HANDSHAKE: u8 = 22; // RFC 8446 §5.1
    assert!(heard.len() >= 2 && heard.iter().all(|first| first[0] == HANDSHAKE), "{heard:?}");
}

#[test]
fn a_service_that_is_no_server_is_told_nothing() {
    let authority = Authority::new();
    let pair = authority.server(&["localhost", "127.0.0.1"]);
    let other = Tieline::start(&format!(
        "[listener.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         tls = {{ certificate = \"{}\", key = \"{}\" }}\n\
         [[listener.web.route]]\nupstream = \"far\"\naccess = \"public\"\n\
         [upstream.far]\nendpoints = [\"{}\"]\n",
        pair.certificate.display(),
        pair.key.display(),
        TcpServer::sink().address(),
    ));
    let direct = format!("ca = \"{}\", negotiation = \"direct\"", authority.ca().display());
    let (tieline, address) = before(other.listener_address("web"), &direct);
    let refused = psql(address, "ana", "select 1", &[]);
    assert!(!refused.success(), "{refused:?}");
    let told = || tieline.log().contains("does not speak TLS directly");
    assert!(wait_until(PATIENCE, told), "{}\n{}", refused.stderr, tieline.log());
}
