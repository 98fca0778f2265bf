//! Each limit where it stops and one before, and the scan however the bytes come.

use super::super::{FIELDS_MAX, HeadScan, HttpError, Limits, Room, parse_request};

fn both(head: &[u8], limits: &Limits) -> Result<usize, HttpError> {
    let end = HeadScan::default().find(head, limits)?.ok_or(HttpError::NoEnd)?;
    parse_request(&head[..end], limits, &mut Room::new()).map(|_| end)
}

/// What the scan says when the bytes come one by one.
fn dripped(bytes: &[u8], limits: &Limits) -> Result<Option<usize>, HttpError> {
    let mut scan = HeadScan::default();
    for end in 0..=bytes.len() {
        match scan.find(&bytes[..end], limits) {
            Ok(None) => {}
            decided => return decided,
        }
    }
    Ok(None)
}

#[test]
fn a_request_line_is_at_most_as_long_as_allowed() {
    let limits = Limits { line: 100, ..Limits::default() };
    let head =
        |line: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(line - 14)).into_bytes();
    assert_eq!(both(&head(99), &limits), Ok(99 + 13));
    assert_eq!(both(&head(100), &limits), Ok(100 + 13));
    assert_eq!(both(&head(101), &limits), Err(HttpError::LineTooLong));
    assert_eq!(dripped(&head(101), &limits), Err(HttpError::LineTooLong));
    assert_eq!(dripped(&head(100), &limits), Ok(Some(113)));
    let behind_empty = [b"\r\n", &head(100)[..]].concat();
    assert_eq!(both(&behind_empty, &limits), Ok(115));
    assert_eq!(dripped(&[b"\r\n", &head(101)[..]].concat(), &limits), Err(HttpError::LineTooLong));
    assert_eq!(parse_request(&head(101), &limits, &mut Room::new()).unwrap_err().status(), 414);
    assert_eq!(dripped(&[b'a'; 101], &limits), Ok(None));
    assert_eq!(dripped(&[b'a'; 102], &limits), Err(HttpError::LineTooLong));
}

#[test]
fn a_head_is_at_most_as_large_as_allowed() {
    let limits = Limits { head: 200, ..Limits::default() };
    let head = |length: usize| {
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(length - 32)).into_bytes()
    };
    for allowed in [199, 200] {
        assert_eq!(both(&head(allowed), &limits), Ok(allowed));
        assert_eq!(dripped(&head(allowed), &limits), Ok(Some(allowed)));
    }
    assert_eq!(both(&head(201), &limits), Err(HttpError::HeadTooLarge));
    assert_eq!(dripped(&head(201), &limits), Err(HttpError::HeadTooLarge));
    assert_eq!(parse_request(&head(201), &limits, &mut Room::new()).unwrap_err().status(), 431);
    let long_tail = [&head(200)[..], &[b'x'; 500]].concat();
    assert_eq!(HeadScan::default().find(&long_tail, &limits), Ok(Some(200)));
}

#[test]
fn there_are_at_most_as_many_fields_as_allowed() {
    let head = |count: usize| {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1)).into_bytes()
    };
    let limits = Limits::default();
    assert!(both(&head(99), &limits).is_ok());
    assert!(both(&head(100), &limits).is_ok());
    assert_eq!(both(&head(101), &limits), Err(HttpError::TooManyFields));
    assert_eq!(HttpError::TooManyFields.status(), 431);
    let beyond = Limits { fields: 1000, ..limits };
    assert!(both(&head(FIELDS_MAX), &beyond).is_ok());
    assert_eq!(both(&head(FIELDS_MAX + 1), &beyond), Err(HttpError::TooManyFields));
    assert_eq!(both(&head(1), &Limits { fields: 0, ..limits }), Err(HttpError::TooManyFields));
}

#[test]
fn one_scan_finds_head_after_head() {
    let limits = Limits::default();
    let heads = [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"\r\nGET /b HTTP/1.1\r\n\r\n", b"A\r\n\r\n"];
    let mut stream = heads.concat();
    let mut scan = HeadScan::default();
    for head in heads {
        assert_eq!(scan.find(&stream[..1], &limits), Ok(None));
        assert_eq!(scan.find(&stream, &limits), Ok(Some(head.len())));
        stream.drain(..head.len());
    }
}

#[test]
fn nothing_yet_is_no_error() {
    assert_eq!(HeadScan::default().find(b"", &Limits::default()), Ok(None));
    assert_eq!(HeadScan::default().find(b"\r", &Limits::default()), Ok(None));
    assert_eq!(HeadScan::default().find(b"\r\n", &Limits::default()), Ok(None));
}

#[test]
fn a_dripped_head_is_looked_at_once() {
    // Quadratic work would take minutes here.
    let limits = Limits { line: 1 << 20, head: 1 << 20, fields: 100 };
    let bytes = vec![b'a'; (1 << 20) - 1];
    assert_eq!(dripped(&bytes, &limits), Ok(None));
}
