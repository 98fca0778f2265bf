//! Who proves what to whom.

use rustls::{CertificateError, Error};
use tieline_transport::tls::{
    ClientCertificates, ClientTlsSettings, ServerTls, ServerTlsSettings, TlsAcceptError, TlsConnectError,
    Verify, Voucher,
};

use crate::meet;
use crate::pki::{Authority, load, load_client};

fn server(authority: &Authority, crl: Option<&[u64]>, required: bool) -> ServerTls {
    let crl = crl.map(|serials| authority.revoke(serials));
    let clients = ClientCertificates { ca: authority.ca(), crl, required };
    let mut settings = authority.server(&[&["a.test"]]);
    settings.client_certificates = Some(clients);
    load(&settings)
}

fn client(trusts: &Authority, certificate: Option<(&Authority, u64)>) -> ClientTlsSettings {
    let names = ["alice", "192.0.2.7", "alice@example.test"];
    let certificate = certificate.map(|(authority, serial)| authority.issue_number(&names, serial));
    ClientTlsSettings { certificate, ..trusts.client() }
}

#[tokio::test]
async fn a_certificate_says_who_the_client_is() {
    let authority = Authority::new();
    let server = server(&authority, Some(&[]), true);
    let client = load_client(&client(&authority, Some((&authority, 0x1234))));
    for resumed in [false, true] {
        let (accepted, connected) = meet(&server, &client, "a.test").await;
        let (mut near, handshake) = accepted.unwrap();
        let mut far = connected.unwrap().0;
        assert_eq!(handshake.resumed, resumed);
        let certificate = handshake.client_certificate.unwrap();
        assert_eq!((&*certificate.subject, &*certificate.serial), ("CN=alice", "1234"));
        assert_eq!(certificate.names, ["DNS:alice", "IP:192.0.2.7", "email:alice@example.test"]);
        assert_eq!(certificate.fingerprint.to_string().len(), 64);
        assert_eq!((&*certificate.holder, certificate.chain.len()), ("alice", 1));
        assert!(server.judge_again(&certificate.chain).is_ok());
        let stricter = self::server(&authority, Some(&[0x1234]), true);
        assert!(matches!(stricter.judge_again(&certificate.chain), Err(TlsAcceptError::Refused(_))));
        authority.revoke(&[]);
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        near.write_all(b"x").await.unwrap();
        far.read_u8().await.unwrap();
    }
}

#[tokio::test]
async fn no_certificate_is_refused_only_where_one_is_required() {
    let authority = Authority::new();
    let client = load_client(&client(&authority, None));
    let (accepted, _) = meet(&server(&authority, None, true), &client, "a.test").await;
    assert!(matches!(accepted, Err(TlsAcceptError::Refused(Error::NoCertificatesPresented))));
    let (accepted, _) = meet(&server(&authority, None, false), &client, "a.test").await;
    assert_eq!(accepted.unwrap().1.client_certificate, None);
}

#[tokio::test]
async fn a_foreign_certificate_is_refused_even_where_none_is_required() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let client = load_client(&client(&authority, Some((&stranger, 7))));
    let (accepted, _) = meet(&server(&authority, None, false), &client, "a.test").await;
    assert!(matches!(accepted, Err(TlsAcceptError::Refused(Error::InvalidCertificate(_)))));
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let authority = Authority::new();
    let client = load_client(&client(&authority, Some((&authority, 7))));
    let (accepted, _) = meet(&server(&authority, Some(&[8]), true), &client, "a.test").await;
    assert!(accepted.is_ok());
    let (accepted, _) = meet(&server(&authority, Some(&[7]), true), &client, "a.test").await;
    let revoked = Error::InvalidCertificate(CertificateError::Revoked);
    assert!(matches!(accepted, Err(TlsAcceptError::Refused(error)) if error == revoked));
}

#[tokio::test]
async fn an_upstream_must_prove_its_name_unless_nobody_asks() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = load(&authority.server(&[&["a.test", "127.0.0.1"]]));
    let refused = |connected| matches!(connected, Err(TlsConnectError::Certificate(_)));
    let trusting = authority.client();
    assert!(meet(&server, &load_client(&trusting), "127.0.0.1").await.1.is_ok());
    assert!(refused(meet(&server, &load_client(&trusting), "b.test").await.1));
    assert!(refused(meet(&server, &load_client(&stranger.client()), "a.test").await.1));
    let told = ClientTlsSettings { server_name: Some("a.test".into()), ..authority.client() };
    assert!(meet(&server, &load_client(&told), "b.test").await.1.is_ok());
    let blind = ClientTlsSettings { verify: Verify::DangerouslyNone, ..stranger.client() };
    let blind = load_client(&blind);
    assert!(meet(&server, &blind, "b.test").await.1.is_ok());
    assert!(blind.warnings()[0].contains("not verified"), "{:?}", blind.warnings());
}

#[tokio::test]
async fn an_upstream_that_hangs_up_or_speaks_no_tls_is_told_apart() {
    let authority = Authority::new();
    let client = load_client(&authority.client());
    let (near, far) = crate::pair().await;
    drop(near);
    let error = tieline_transport::tls::connect_tls(far, &client, "a.test", None).await.unwrap_err();
    assert!(matches!(error, TlsConnectError::Closed | TlsConnectError::Io(_)), "{error}");
    let (mut near, far) = crate::pair().await;
    tokio::io::AsyncWriteExt::write_all(&mut near, b"220 ready\r\n").await.unwrap();
    let error = tieline_transport::tls::connect_tls(far, &client, "a.test", None).await.unwrap_err();
    assert!(matches!(error, TlsConnectError::Protocol(_)), "{error}");
    let (_near, far) = crate::pair().await;
    let error = tieline_transport::tls::connect_tls(far, &client, "no name", None).await.unwrap_err();
    assert_eq!(error.to_string(), "\"no name\" is neither a host name nor an IP address");
}

#[tokio::test]
async fn whose_word_counts_for_a_client_is_told_and_neither_list_binds_the_other() {
    let (house, company, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let clients = |authority: &Authority, crl: Option<&[u64]>| ClientCertificates {
        ca: authority.ca(),
        crl: crl.map(|serials| authority.revoke(serials)),
        required: false,
    };
    let server = |revoked: &[u64]| {
        load(&ServerTlsSettings {
            client_certificates: Some(clients(&house, None)),
            guests: Some(clients(&company, Some(revoked))),
            ..house.server(&[&["a.test"]])
        })
    };
    let lenient = server(&[]);
    // The same name and the same number: only who signed differs.
    for (authority, voucher) in [(&house, Voucher::House), (&company, Voucher::Guests)] {
        let client = load_client(&ClientTlsSettings {
            certificate: Some(authority.issue_number(&["agent"], 7)),
            ..house.client()
        });
        let (accepted, _) = meet(&lenient, &client, "a.test").await;
        let chain = accepted.unwrap().1.client_certificate.unwrap().chain;
        assert_eq!(lenient.voucher(&chain), Some(voucher));
        assert_eq!(server(&[7]).voucher(&chain), Some(voucher).filter(|it| *it == Voucher::House));
        assert!(lenient.judge_again(&chain).is_ok());
        company.revoke(&[]);
    }
    let client = load_client(&ClientTlsSettings {
        certificate: Some(stranger.issue_number(&["agent"], 7)),
        ..house.client()
    });
    assert!(matches!(meet(&lenient, &client, "a.test").await.0, Err(TlsAcceptError::Refused(_))));
    assert_eq!(lenient.voucher(&[]), None);
}
