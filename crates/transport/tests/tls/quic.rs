//! Datagrams beside the conversation of a connection of QUIC (RFC 9221).

use std::future::poll_fn;
use std::net::Ipv4Addr;

use tieline_base::Address;
use tieline_transport::tls::Alpn;
use tieline_transport::{
    Adopted, Family, Io, QuicAcceptor, QuicBound, QuicClient, QuicServer, accept_quic, dial_quic,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pki::Authority;

/// Both ends of a connection; the second is the server's.
async fn pair(authority: &Authority) -> (Io, Io) {
    let (server, client) = authority.both();
    let alpn = [Alpn::new(b"test").unwrap()];
    let (server, client) =
        (QuicServer::new(&server, &alpn).unwrap(), QuicClient::new(&client, &alpn).unwrap());
    let bound = QuicBound::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let acceptor = QuicAcceptor::new(&bound, &server).unwrap();
    let address = Address::Socket(bound.address());
    let dialing = async {
        let mut near = dial_quic(&address, Family::V4, &client, "a.test").await.unwrap();
        near.write_all(b"first").await.unwrap();
        near
    };
    let accepting = async {
        let accepted = acceptor.accept().await.unwrap();
        let Ok(Adopted::Quic(incoming)) = accepted.adopt() else { panic!("a client of QUIC") };
        accept_quic(incoming, &server).await.unwrap().0
    };
    tokio::join!(dialing, accepting)
}

/// Sends a datagram when there is room for it.
async fn send(io: &mut Io, datagram: Vec<u8>) {
    poll_fn(|cx| io.poll_datagram_room(cx)).await.unwrap();
    io.send_datagram(datagram.into());
}

#[tokio::test]
async fn datagrams_go_beside_the_bytes_up_to_what_the_path_takes() {
    let (mut near, mut far) = pair(&Authority::new()).await;
    let most = near.datagram_max().expect("both ends take datagrams");
    assert!((1_000..1_500).contains(&most), "{most}");
    for length in [0, 1, 1_000, most] {
        send(&mut near, vec![7; length]).await;
        assert_eq!(poll_fn(|cx| far.poll_datagram(cx)).await.unwrap().len(), length);
    }
    // The bytes are where they were.
    let mut first = [0; 5];
    far.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"first");
    // One that is too long is lost, and nothing else.
    send(&mut near, vec![8; 9_000]).await;
    send(&mut near, vec![9; 10]).await;
    assert_eq!(poll_fn(|cx| far.poll_datagram(cx)).await.unwrap()[..], [9; 10]);
}

#[tokio::test]
async fn who_sends_more_than_the_path_takes_waits_for_room() {
    const COUNT: usize = 2_000;
    let (mut near, mut far) = pair(&Authority::new()).await;
    let sending = async {
        for _ in 0..COUNT {
            send(&mut near, vec![7; 1_000]).await;
        }
        // The last word, until it is heard.
        loop {
            send(&mut near, Vec::new()).await;
            tokio::task::yield_now().await;
        }
    };
    let receiving = async {
        let mut heard = 0;
        while !poll_fn(|cx| far.poll_datagram(cx)).await.unwrap().is_empty() {
            heard += 1;
        }
        heard
    };
    // Both arms may be dropped: the first never ends.
    let heard = tokio::select! {
        () = sending => unreachable!("it never ends"),
        heard = receiving => heard,
    };
    assert!(heard > COUNT / 2, "{heard} of {COUNT}");
}
