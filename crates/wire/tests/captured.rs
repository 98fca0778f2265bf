//! Bytes captured from real programs: HAProxy 2.6, OpenSSL 3.0, Python 3.11, curl, rustls with post-quantum
//! keys. They live in the fuzz corpus, which starts from them.

use tieline_wire::hello::{self, ClientHello, Hello};
use tieline_wire::{Parsed, proxy};

fn captured(target: &str, name: &str) -> Vec<u8> {
    let path = format!("{}/../../fuzz/corpus/{target}/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[track_caller]
fn hello_of(name: &str, server_name: Option<&str>, alpn: &[&str]) {
    let bytes = captured("hello", name);
    let Ok(Parsed::Done { value: Hello::Tls(ClientHello { server_name: found, alpn: offered }), consumed }) =
        hello::parse(&bytes)
    else {
        panic!("{name}: {:?}", hello::parse(&bytes));
    };
    assert_eq!(found.as_deref(), server_name);
    assert_eq!(offered, alpn.iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
    assert_eq!(consumed, bytes.len());
}

#[test]
fn every_client_s_hello_is_read() {
    hello_of("openssl-tls13", Some("shop.example.com"), &["h2", "http/1.1"]);
    hello_of("openssl-tls12", Some("legacy.example.com"), &[]);
    hello_of("openssl-without-name", None, &[]);
    hello_of("python", Some("python.example.com"), &[]);
    hello_of("curl", Some("api.example.com"), &["h2", "http/1.1"]);
    hello_of("rustls-post-quantum", Some("pq.example.com"), &["h2", "http/1.1"]);
}

#[test]
fn a_hello_in_three_records_is_read() {
    let protocols: Vec<String> = (0..20).map(|n| format!("proto-{n:02}-{}", "x".repeat(30))).collect();
    let protocols: Vec<&str> = protocols.iter().map(String::as_str).collect();
    hello_of("openssl-fragmented", Some("fragmented.example.com"), &protocols);
}

#[test]
fn every_header_of_haproxy_is_read() {
    for (name, source) in [
        ("haproxy-v1", "127.0.0.1:51272"),
        ("haproxy-v1-ipv6", "[::1]:37278"),
        ("haproxy-v2", "127.0.0.1:39550"),
        ("haproxy-v2-checksum", "127.0.0.1:44714"),
        ("haproxy-v2-ipv6-checksum", "[::1]:53244"),
    ] {
        let bytes = captured("proxy", name);
        let Ok(Parsed::Done { value, consumed }) = proxy::parse(&bytes) else {
            panic!("{name}: {:?}", proxy::parse(&bytes));
        };
        assert_eq!(value.source.map(|source| source.to_string()).as_deref(), Some(source), "{name}");
        assert_eq!(&bytes[consumed..], b"hello");
    }
}
