use proptest::prelude::*;

use super::{ClientHello, HELLO_MAX, Hello, HelloError, parse};
use crate::Parsed;

/// A ClientHello message with these extensions, as TLS 1.3 clients frame it.
fn message(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]); // random
    body.extend([0, 0, 4, 0x0a, 0x0a, 0x13, 0x01]); // no session id; a GREASE suite and a real one
    body.extend([1, 0]); // no compression
    let block: Vec<u8> = extensions.iter().flat_map(|(kind, content)| extension(*kind, content)).collect();
    body.extend((block.len() as u16).to_be_bytes());
    body.extend(block);
    handshake(1, &body)
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &(content.len() as u16).to_be_bytes(), content].concat()
}

fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = (body.len() as u32).to_be_bytes();
    [&[kind, high, middle, low], body].concat()
}

fn record(payload: &[u8]) -> Vec<u8> {
    [&[0x16, 3, 1][..], &(payload.len() as u16).to_be_bytes(), payload].concat()
}

/// The message in records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(record).collect()
}

fn named(names: &[(u8, &[u8])]) -> (u16, Vec<u8>) {
    let entry =
        |(kind, name): &(u8, &[u8])| [&[*kind][..], &(name.len() as u16).to_be_bytes(), *name].concat();
    let list: Vec<u8> = names.iter().flat_map(entry).collect();
    (0, [&(list.len() as u16).to_be_bytes(), &list[..]].concat())
}

fn alpn(content: &[u8]) -> (u16, Vec<u8>) {
    (16, [&(content.len() as u16).to_be_bytes(), content].concat())
}

fn hello(bytes: &[u8]) -> ClientHello {
    match parse(bytes).unwrap() {
        Parsed::Done { value: Hello::Tls(hello), consumed } => {
            assert_eq!(consumed, bytes.len());
            hello
        }
        other => panic!("{other:?}"),
    }
}

fn error(extensions: &[(u16, Vec<u8>)]) -> HelloError {
    parse(&record(&message(extensions))).unwrap_err()
}

#[test]
fn one_byte_tells_that_it_is_not_tls() {
    let not_tls = Ok(Parsed::Done { value: Hello::NotTls, consumed: 0 });
    for first in (0..=255).filter(|first| *first != 0x16) {
        assert_eq!(parse(&[first]), not_tls);
    }
    assert_eq!(parse(&[0x16, 0x02]), not_tls);
    assert_eq!(parse(&[0x16, 0x03]), Ok(Parsed::Incomplete { at_most: HELLO_MAX }));
}

#[test]
fn finds_the_name_and_the_protocols_among_grease() {
    let grease = (0x1a1a, vec![0]);
    let extensions = [
        grease.clone(),
        named(&[(0, b"Shop.EXAMPLE.com")]),
        alpn(b"\x02\x0a\x0a\x02h2\x08http/1.1"),
        (0xfafa, vec![]),
        grease,
    ];
    let hello = hello(&record(&message(&extensions)));
    assert_eq!(hello.server_name.as_deref(), Some("shop.example.com"));
    assert_eq!(hello.alpn, [&b"\x0a\x0a"[..], b"h2", b"http/1.1"]);
}

#[test]
fn a_hello_without_extensions_names_nothing() {
    assert_eq!(hello(&record(&message(&[]))), ClientHello::default());
    // Older than extensions: the message ends behind the compression methods.
    let bare = &message(&[])[4..];
    assert_eq!(hello(&record(&handshake(1, &bare[..bare.len() - 2]))), ClientHello::default());
}

#[test]
fn a_name_that_is_no_host_name_is_refused() {
    for name in [
        &b""[..],
        b"10.0.0.1",
        b"::1",
        b"[::1]",
        b"a..b",
        b"example.com.",
        b"shop\0.example.com",
        b"shop.example.com\0",
        b"shop example.com",
        b"shop.ex\xc3\xa4mple.com",
        b"\xff",
        b"*.example.com",
        &[b'a'; 64],
    ] {
        assert_eq!(error(&[named(&[(0, name)])]), HelloError::ServerName, "{name:?}");
    }
}

#[test]
fn what_is_stated_twice_is_refused() {
    let name = named(&[(0, b"a.example")]);
    assert_eq!(error(&[name.clone(), name.clone()]), HelloError::Duplicate);
    assert_eq!(error(&[named(&[(0, b"a.example"), (0, b"b.example")])]), HelloError::Duplicate);
    assert_eq!(error(&[alpn(b"\x02h2"), name, alpn(b"\x02h2")]), HelloError::Duplicate);
}

#[test]
fn a_name_of_an_unknown_kind_is_passed_over() {
    let extensions = [named(&[(7, b"\0\xff"), (0, b"a.example")])];
    assert_eq!(hello(&record(&message(&extensions))).server_name.as_deref(), Some("a.example"));
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let wrong = [
        (0, vec![]),
        (0, vec![0, 0]),
        (0, vec![0, 4, 0, 0, 1]),
        (0, vec![0, 3, 0, 0, 9]),
        (0, [&named(&[(0, b"a.example")]).1[..], &[0]].concat()),
        (16, vec![0, 0]),
        (16, vec![0, 1, 0]),
        (16, vec![0, 2, 2, b'h']),
        (16, vec![0, 2, 1, b'h', 0]),
    ];
    for extension in wrong {
        assert_eq!(error(std::slice::from_ref(&extension)), HelloError::Malformed, "{extension:?}");
    }
    let body = &message(&[])[4..];
    for cut in (0..body.len()).filter(|cut| *cut != body.len() - 2) {
        let cut = record(&handshake(1, &body[..cut]));
        assert_eq!(parse(&cut).unwrap_err(), HelloError::Malformed);
    }
    let longer = record(&handshake(1, &[body, &[0]].concat()));
    assert_eq!(parse(&longer).unwrap_err(), HelloError::Malformed);
}

#[test]
fn records_that_break_the_rules_are_refused() {
    let message = message(&[]);
    let after_first = |behind: &[u8]| parse(&[&record(&message[..10])[..], behind].concat()).unwrap_err();
    assert_eq!(after_first(&[0x15]), HelloError::RecordType(0x15));
    assert_eq!(after_first(&[0x16, 3, 1, 0, 0]), HelloError::RecordLength(0));
    assert_eq!(after_first(&[0x16, 3, 1, 0x40, 1]), HelloError::RecordLength(16_385));
    assert_eq!(parse(&record(&[2])).unwrap_err(), HelloError::MessageType(2));
    let behind = record(&[&message[..], &[0]].concat());
    assert_eq!(parse(&behind).unwrap_err(), HelloError::TrailingBytes);
}

#[test]
fn size_and_number_of_records_are_bounded() {
    assert_eq!(parse(&record(&[1, 1, 0, 0])).unwrap_err(), HelloError::TooLong);
    assert_eq!(parse(&record(&[1, 0xff, 0xff, 0xff])).unwrap_err(), HelloError::TooLong);
    let padding = |length: usize| (21, vec![0; length]);
    let cut_small = |length| records(&message(&[padding(length)]), 1);
    let fits = cut_small(256 - message(&[padding(0)]).len());
    assert_eq!(hello(&fits), ClientHello::default());
    let one_more = cut_small(257 - message(&[padding(0)]).len());
    assert_eq!(parse(&one_more).unwrap_err(), HelloError::TooManyRecords);
    // The message alone fits, its many record headers do not.
    let large = records(&message(&[padding(HELLO_MAX - 400)]), 300);
    assert_eq!(parse(&large).unwrap_err(), HelloError::TooLong);
}

proptest! {
    #[test]
    fn fragments_do_not_change_what_is_read(
        name in "[a-z]{1,20}\\.[a-z]{2,5}",
        padding in 0usize..3000,
        size in 20usize..5000,
        behind in any::<[u8; 8]>(),
    ) {
        let extensions = [(21, vec![0; padding]), named(&[(0, name.as_bytes())]), alpn(b"\x02h2")];
        let bytes = records(&message(&extensions), size);
        let found = hello(&bytes);
        prop_assert_eq!(found.server_name.as_deref(), Some(&*name));
        prop_assert_eq!(&found.alpn, &[b"h2".to_vec()]);
        let longer = [&bytes[..], &behind].concat();
        prop_assert_eq!(parse(&longer), Ok(Parsed::Done { value: Hello::Tls(found), consumed: bytes.len() }));
    }

    #[test]
    fn an_answer_is_final(
        name in "[a-zA-Z.0-9]{0,12}", size in 1usize..60, at in any::<usize>(), bit in 0u8..8,
    ) {
        let extensions = [named(&[(0, name.as_bytes())]), alpn(b"\x02h2")];
        let mut bytes = records(&message(&extensions), size);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let last = parse(&bytes);
        for cut in 0..bytes.len() {
            match parse(&bytes[..cut]) {
                Ok(Parsed::Incomplete { at_most }) => prop_assert!(cut < at_most),
                decided => prop_assert_eq!(&decided, &last),
            }
        }
    }
}
