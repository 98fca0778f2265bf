//! The first bytes of a connection.

use tieline_base::is_host_name;
use tieline_wire::Parsed;
use tieline_wire::hello::{HELLO_MAX, Hello, parse};

use crate::prefixes::assert_final;

/// Answers are final; a name is a host name in lower case; cutting the records anew changes nothing.
pub fn hello(data: &[u8]) {
    assert_final(data, parse);
    let Ok(Parsed::Done { value: Hello::Tls(hello), consumed }) = parse(data) else { return };
    assert!(consumed <= HELLO_MAX);
    if let Some(name) = &hello.server_name {
        assert!(is_host_name(name) && !name.contains(|letter: char| letter.is_ascii_uppercase()), "{name:?}");
    }
    let payload = payload(&data[..consumed]);
    for size in [payload.len().div_ceil(200), 1 << 14] {
        let again: Vec<u8> = payload.chunks(size).flat_map(record).collect();
        match parse(&again) {
            Ok(Parsed::Done { value, consumed }) => {
                assert_eq!((value, consumed), (Hello::Tls(hello.clone()), again.len()));
            }
            other => assert!(again.len() > HELLO_MAX, "cut by {size}: {other:?}"),
        }
    }
}

/// What the records carry.
fn payload(mut records: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    while let Some((&[_, _, _, high, low], behind)) = records.split_first_chunk() {
        let (content, rest) = behind.split_at(usize::from(u16::from_be_bytes([high, low])));
        payload.extend_from_slice(content);
        records = rest;
    }
    payload
}

fn record(payload: &[u8]) -> Vec<u8> {
    [&[0x16, 3, 3][..], &(payload.len() as u16).to_be_bytes(), payload].concat()
}
