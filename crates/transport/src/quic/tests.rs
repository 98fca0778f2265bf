//! Both ends over real sockets.

use std::net::{Ipv4Addr, SocketAddr};

use quinn::{Connection, Endpoint, TokioRuntime};
use tieline_testkit::{Authority, PATIENCE};

use super::*;
use crate::tls::{CertificateFiles, ClientTlsSettings, Roots, ServerTlsSettings};

/// Both ends, and the sockets that they need.
struct Both {
    near: Connection,
    far: Connection,
    _endpoints: [Endpoint; 2],
}

fn settings() -> (QuicServer, QuicClient) {
    let authority = Authority::new();
    let pair = authority.server(&["a.test"]);
    let certificates = vec![CertificateFiles { chain: pair.certificate, key: pair.key }];
    let server = ServerTlsSettings { certificates, ..ServerTlsSettings::default() };
    let client = ClientTlsSettings { roots: Roots::Bundle(authority.ca()), ..ClientTlsSettings::default() };
    let alpn = [Alpn::new(b"test").unwrap()];
    let server = QuicServer::new(&ServerTls::load(&server).unwrap(), &alpn).unwrap();
    (server, QuicClient::new(&ClientTls::load(&client).unwrap(), &alpn).unwrap())
}

fn open(server: Option<&QuicServer>) -> Endpoint {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let server = server.map(|server| (*server.far).clone());
    Endpoint::new(endpoint(), server, socket, Arc::new(TokioRuntime)).unwrap()
}

/// Joins both, each set up as towards `peer`.
async fn joined(peer: SocketAddr) -> Both {
    let (server, client) = settings();
    let endpoints = [open(Some(&server)), open(None)];
    let to = endpoints[0].local_addr().unwrap();
    let connecting = endpoints[1].connect_with(client.towards(peer), to, "a.test").unwrap();
    let accepting = async {
        let incoming = endpoints[0].accept().await.unwrap();
        incoming.accept_with(server.towards(peer).clone()).unwrap().await.unwrap()
    };
    let (far, near) = tokio::join!(connecting, accepting);
    Both { near, far: far.unwrap(), _endpoints: endpoints }
}

/// Moves bytes from one to the other until the packets of both are `large`.
async fn grows(both: &Both, large: u16) {
    let (mut send, _receive) = both.far.open_bi().await.unwrap();
    send.write_all(b"first").await.unwrap();
    let (mut answer, mut asked) = both.near.accept_bi().await.unwrap();
    let mut place = vec![0; 64 << 10];
    let mtu = |connection: &Connection| connection.stats().path.current_mtu;
    while mtu(&both.near) < large || mtu(&both.far) < large {
        send.write_all(&[7; 4096]).await.unwrap();
        asked.read(&mut place).await.unwrap();
        answer.write_all(b"taken").await.unwrap();
    }
}

fn here() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 1).into()
}

#[tokio::test]
async fn on_one_machine_packets_become_large_and_arrive() {
    let both = joined(here()).await;
    let large = PACKET_MAX_HERE - 100;
    tokio::time::timeout(PATIENCE, grows(&both, large)).await.unwrap();
    // A train of ten of them is as much as the kernel takes.
    let (mut send, _) = both.near.open_bi().await.unwrap();
    let sending = async {
        send.write_all(&vec![9; 4 << 20]).await.unwrap();
        send.finish().unwrap();
    };
    let receiving = async { both.far.accept_bi().await.unwrap().1.read_to_end(8 << 20).await.unwrap() };
    let moved = tokio::time::timeout(PATIENCE, async { tokio::join!(sending, receiving).1 }).await.unwrap();
    assert!(moved.len() == 4 << 20 && moved.iter().all(|&byte| byte == 9));
}

#[tokio::test]
async fn a_long_path_follows_what_is_delivered_and_a_short_one_does_not() {
    let paces = |connection: &Connection| {
        let state = connection.congestion_state();
        state.into_any().downcast::<pace::Estimate>().is_ok()
    };
    let both = joined(([192, 0, 2, 1], 1).into()).await;
    assert!(paces(&both.near) && paces(&both.far));
    let both = joined(here()).await;
    assert!(!paces(&both.near) && !paces(&both.far));
}

#[test]
fn addresses_of_this_machine_are_here() {
    for (address, reach) in [
        ("127.0.0.1", Reach::Here),
        ("::1", Reach::Here),
        ("::ffff:127.0.0.2", Reach::Here),
        ("192.0.2.1", Reach::Far),
        ("2001:db8::1", Reach::Far),
    ] {
        assert_eq!(Reach::of(address.parse().unwrap()), reach, "{address}");
    }
}
