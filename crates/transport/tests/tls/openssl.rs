//! The openssl command line as the client.

use std::process::{Command, Stdio};

use tieline_transport::Io;
use tieline_transport::tls::{Handshake, ServerTls, TlsAcceptError, accept_tls};
use tokio::io::AsyncWriteExt;

use crate::pki::{Authority, load};

struct Seen {
    output: String,
    handshakes: Vec<Result<Handshake, TlsAcceptError>>,
}

/// Runs `openssl s_client` with `arguments` against `server`, which greets each connection and closes it.
async fn s_client(server: &ServerTls, authority: &Authority, arguments: &[&str]) -> Seen {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address, "-CAfile"]).arg(authority.ca()).args(arguments);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let mut handshakes = Vec::new();
    let output = loop {
        tokio::select! {
            output = &mut ended => break output.unwrap(),
            accepted = listener.accept() => {
                handshakes.push(greet(Io::Tcp(accepted.unwrap().0), server).await);
            }
        }
    };
    let text = [output.stdout, output.stderr].concat();
    Seen { output: String::from_utf8_lossy(&text).into_owned(), handshakes }
}

async fn greet(io: Io, server: &ServerTls) -> Result<Handshake, TlsAcceptError> {
    let (mut io, handshake) = accept_tls(io, server).await?;
    // A client that has seen enough may be gone.
    let _ = io.write_all(b"hello\n").await;
    let _ = io.shutdown().await;
    Ok(handshake)
}

#[tokio::test]
async fn both_versions_verify_and_show_the_certificate_of_the_name() {
    let authority = Authority::new();
    let server = load(&authority.server(&[&["a.test"], &["*.b.test"]]));
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let arguments = [version, "-servername", "x.b.test", "-verify_return_error"];
        let seen = s_client(&server, &authority, &arguments).await;
        assert!(seen.output.contains("subject=CN = *.b.test"), "{}", seen.output);
        assert!(seen.output.contains("Verify return code: 0 (ok)"), "{}", seen.output);
        assert!(seen.output.contains(name), "{}", seen.output);
    }
    let seen = s_client(&server, &authority, &["-noservername"]).await;
    assert!(seen.output.contains("subject=CN = a.test"), "{}", seen.output);
}

#[tokio::test]
async fn old_versions_and_ciphers_without_authentication_fail() {
    let authority = Authority::new();
    let server = load(&authority.server(&[&["a.test"]]));
    let old: [&[&str]; 2] = [
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA"],
    ];
    for arguments in old {
        let seen = s_client(&server, &authority, arguments).await;
        assert!(matches!(seen.handshakes[..], [Err(TlsAcceptError::Protocol(_))]), "{:?}", seen.handshakes);
        assert!(seen.output.contains("alert"), "{}", seen.output);
    }
}

#[tokio::test]
async fn a_tls_1_2_session_is_resumed_with_and_without_a_ticket() {
    let authority = Authority::new();
    let server = load(&authority.server(&[&["a.test"]]));
    for arguments in [&["-tls1_2", "-reconnect"][..], &["-tls1_2", "-reconnect", "-no_ticket"]] {
        let seen = s_client(&server, &authority, arguments).await;
        let resumed = |handshake: &Result<Handshake, _>| handshake.as_ref().is_ok_and(|shake| shake.resumed);
        let count = seen.handshakes.iter().filter(|shake| resumed(shake)).count();
        assert!(seen.handshakes.len() > 1 && count == seen.handshakes.len() - 1, "{:?}", seen.handshakes);
        assert!(seen.output.contains("Reused, TLSv1.2"), "{}", seen.output);
    }
}
