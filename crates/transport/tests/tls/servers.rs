//! What a server chooses: certificates, protocols, sessions.

use rustls::{AlertDescription, Error};
use tieline_transport::tls::{
    Alpn, ServerTlsSettings, TlsAcceptError, TlsConnectError, TlsVersion, accept_tls_after, connect_tls,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pki::{Authority, load, load_client};
use crate::{meet, met, pair};

#[tokio::test]
async fn the_name_chooses_exactly_then_by_wildcard_then_the_first() {
    let authority = Authority::new();
    let names: &[&[&str]] = &[&["a.test"], &["*.b.test"], &["c.b.test", "d.test"]];
    let server = load(&authority.server(names));
    let client = load_client(&authority.client());
    // The client takes a certificate only for the name it asked for: the right one was chosen.
    for name in ["a.test", "x.b.test", "c.b.test", "d.test", "X.B.test"] {
        let (_, _, handshake) = met(&server, &client, name).await;
        assert_eq!(handshake.server_name, Some(name.to_lowercase()));
        assert_eq!((handshake.version, handshake.resumed), (TlsVersion::Tls13, false));
    }
    for name in ["b.test", "x.y.b.test", "other.test"] {
        let (_, connected) = meet(&server, &client, name).await;
        let error = connected.unwrap_err();
        assert!(matches!(error, TlsConnectError::Certificate(_)), "{name}: {error}");
        assert!(error.to_string().contains("a.test"), "the first answers: {error}");
    }
}

#[tokio::test]
async fn a_strict_server_refuses_names_it_does_not_bear() {
    let authority = Authority::new();
    let settings = ServerTlsSettings { strict_sni: true, ..authority.server(&[&["a.test"]]) };
    let (server, client) = (load(&settings), load_client(&authority.client()));
    met(&server, &client, "a.test").await;
    let (accepted, connected) = meet(&server, &client, "b.test").await;
    assert_eq!(accepted.unwrap_err().to_string(), "no certificate for b.test");
    let told = Error::AlertReceived(AlertDescription::UnrecognisedName);
    assert!(matches!(connected, Err(TlsConnectError::Protocol(error)) if error == told));
    let (accepted, _) = meet(&server, &client, "127.0.0.1").await;
    assert!(matches!(accepted, Err(TlsAcceptError::NoCertificate { server_name: None })));
}

#[tokio::test]
async fn the_server_prefers_among_the_protocols_that_both_speak() {
    let authority = Authority::new();
    let alpn = |names: &[&str]| names.iter().map(|name| Alpn::new(name.as_bytes()).unwrap()).collect();
    let mut settings = authority.server(&[&["a.test"]]);
    settings.alpn = alpn(&["h2", "http/1.1"]);
    let server = load(&settings);
    for (offered, chosen) in
        [(vec!["http/1.1", "h2"], Some("h2")), (vec!["http/1.1"], Some("http/1.1")), (vec![], None)]
    {
        let mut client = authority.client();
        client.alpn = alpn(&offered);
        let (accepted, connected) = meet(&server, &load_client(&client), "a.test").await;
        let chosen = chosen.map(|name: &str| Alpn::new(name.as_bytes()).unwrap());
        assert_eq!((accepted.unwrap().1.alpn, connected.unwrap().1), (chosen.clone(), chosen));
    }
    let mut stranger = authority.client();
    stranger.alpn = alpn(&["other"]);
    let (accepted, _) = meet(&server, &load_client(&stranger), "a.test").await;
    assert!(matches!(accepted, Err(TlsAcceptError::Protocol(Error::NoApplicationProtocol))));
}

#[tokio::test]
async fn a_session_is_resumed_until_the_server_is_loaded_anew() {
    let authority = Authority::new();
    let settings = authority.server(&[&["a.test", "b.test"]]);
    let (mut server, client) = (load(&settings), load_client(&authority.client()));
    // The last: a name other than the session's.
    for (reload, name, resumed) in [
        (false, "a.test", false),
        (false, "a.test", true),
        (false, "b.test", false),
        (true, "a.test", false),
        (false, "a.test", true),
    ] {
        if reload {
            server = load(&settings);
        }
        let (mut near, mut far, handshake) = met(&server, &client, name).await;
        assert_eq!(handshake.resumed, resumed, "{reload} {name}");
        // Tickets come with the first bytes.
        near.write_all(b"x").await.unwrap();
        near.flush().await.unwrap();
        far.read_u8().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_read_of_the_client_before_is_not_lost() {
    let authority = Authority::new();
    let (server, client) = authority.both();
    for length in [1, 5, 100, 10_000] {
        let (mut near, far) = pair().await;
        let accepting = async {
            let mut opening = vec![0; length];
            let read = near.read(&mut opening).await.unwrap();
            opening.truncate(read);
            accept_tls_after(near, opening, &server, std::future::ready(())).await
        };
        let (accepted, connected) = tokio::join!(accepting, connect_tls(far, &client, "a.test", None));
        connected.unwrap();
        assert_eq!(accepted.unwrap().1.server_name.as_deref(), Some("a.test"), "{length}");
    }
}

#[tokio::test]
async fn what_is_no_tls_is_told_from_who_leaves() {
    let authority = Authority::new();
    let server = authority.both().0;
    let (near, mut far) = pair().await;
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = tieline_transport::tls::accept_tls(near, &server).await.unwrap_err();
    assert!(matches!(error, TlsAcceptError::Protocol(_)), "{error}");
    let (near, mut far) = pair().await;
    far.write_all(&[22, 3, 1]).await.unwrap();
    drop(far);
    let error = tieline_transport::tls::accept_tls(near, &server).await.unwrap_err();
    assert!(matches!(error, TlsAcceptError::Closed), "{error}");
}
