use std::num::NonZeroUsize;

use super::super::HttpError::{self, *};
use super::super::{
    CHUNK_END, ChunkedDecoder, LAST_CHUNK, Method, Progress, encode_chunk_head, encode_last_chunk,
    encode_status_line, push_field,
};

/// The body, its trailers and how many bytes both took, given in pieces of `size`.
fn decode(bytes: &[u8], size: usize) -> Result<(Vec<u8>, Vec<u8>, usize), HttpError> {
    let mut decoder = ChunkedDecoder::new();
    let mut body = Vec::new();
    let mut consumed = 0;
    for piece in bytes.chunks(size) {
        let mut rest = piece;
        while !rest.is_empty() {
            let chunk = decoder.decode(rest)?;
            body.extend_from_slice(&rest[chunk.data.clone()]);
            consumed += chunk.consumed;
            if chunk.progress == Progress::Done {
                assert_eq!(decoder.decode(b"0\r\n").unwrap().consumed, 0);
                return Ok((body, decoder.trailers().to_vec(), consumed));
            }
            assert!(chunk.consumed > 0);
            rest = &rest[chunk.consumed..];
        }
    }
    Err(NoEnd)
}

fn all_cuts(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>, usize), HttpError> {
    let whole = decode(bytes, bytes.len());
    for size in 1..bytes.len() {
        assert_eq!(decode(bytes, size), whole, "cut by {size}: {}", bytes.escape_ascii());
    }
    whole
}

fn body(bytes: &[u8]) -> Result<String, HttpError> {
    all_cuts(bytes).map(|(body, ..)| String::from_utf8(body).unwrap())
}

#[test]
fn chunks_are_joined_and_extensions_forgotten() {
    for (bytes, expected) in [
        (&b"0\r\n\r\n"[..], ""),
        (b"5\r\nhello\r\n0\r\n\r\n", "hello"),
        (b"1\r\na\r\n2\r\nbc\r\n00\r\n\r\n", "abc"),
        (b"00000001\r\na\r\n00000000\r\n\r\n", "a"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        (b"a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        (b"1;a\r\nx\r\n0;b=c;d=\"e\"\r\n\r\n", "x"),
        (b"1;a=\"\\\"\\\\;,\t \x80\";b\r\nx\r\n0\r\n\r\n", "x"),
        (b"1;a=\"\"\r\nx\r\n0\r\n\r\n", "x"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
    ] {
        assert_eq!(body(bytes).as_deref(), Ok(expected), "{}", bytes.escape_ascii());
    }
}

#[test]
fn chunk_sizes_and_line_ends_are_exact() {
    let table: &[(&[u8], HttpError)] = &[
        (b"\r\n\r\n", ChunkSize),
        (b"g\r\n", ChunkSize),
        (b"-1\r\n", ChunkSize),
        (b"+1\r\na\r\n0\r\n\r\n", ChunkSize),
        (b"0x1\r\na\r\n0\r\n\r\n", ChunkSize),
        (b" 1\r\na\r\n0\r\n\r\n", ChunkSize),
        (b"1 \r\na\r\n0\r\n\r\n", ChunkSize),
        (b"1\t\r\na\r\n0\r\n\r\n", ChunkSize),
        (b"1 ;a\r\nx\r\n0\r\n\r\n", ChunkSize),
        (b"1_0\r\n", ChunkSize),
        (b"000000001\r\na\r\n0\r\n\r\n", ChunkSize),
        (b"ffffffffffffffff1\r\n", ChunkSize),
        (b"100000000\r\n", ChunkSize),
        (b";a\r\n", ChunkSize),
        (b"\xff\r\n", ChunkSize),
        (b"1\na\r\n0\r\n\r\n", BareNewline),
        (b"1\r\r\na\r\n0\r\n\r\n", BareNewline),
        (b"1\ra\r\n0\r\n\r\n", BareNewline),
        (b"1\r\na\n0\r\n\r\n", ChunkEnd),
        (b"1\r\nab\r\n0\r\n\r\n", ChunkEnd),
        (b"1\r\na\rb0\r\n\r\n", ChunkEnd),
        (b"1\r\na0\r\n\r\n", ChunkEnd),
        (b"2\r\na\r\n0\r\n\r\n", ChunkEnd),
        (b"0\n\n", BareNewline),
        (b"0\r\n\n", BareNewline),
        (b"0\r\n\rx", BareNewline),
        (b"\n", BareNewline),
    ];
    for (bytes, error) in table {
        assert_eq!(all_cuts(bytes), Err(*error), "{}", bytes.escape_ascii());
    }
}

#[test]
fn extensions_are_checked() {
    for extension in [
        "",
        ";",
        " a",
        "a b",
        "a=",
        "a=\"",
        "a=\"b",
        "=a",
        "a==b",
        "a=\"b\"c",
        "a;;b",
        "a; b",
        "a=b c",
        "a\n",
        "a\0",
        "a=\"\u{1}\"",
        "a=\"\\\u{7f}\"",
        "a=\"b\n\"",
        "a=\"b\r",
        "\u{e9}",
        "a,b",
        "a=\u{e9}",
    ] {
        let bytes = format!("1;{extension}\r\nx\r\n0\r\n\r\n");
        assert_eq!(all_cuts(bytes.as_bytes()), Err(ChunkExtension), "{extension:?}");
    }
}

#[test]
fn extensions_are_bounded_by_chunk_and_by_body() {
    let one = |length: usize| format!("1;{}\r\nx\r\n", "a".repeat(length - 1));
    let whole = |chunks: String| decode(format!("{chunks}0\r\n\r\n").as_bytes(), 1000).map(|_| ());
    assert_eq!(whole(one(255)), Ok(()));
    assert_eq!(whole(one(256)), Ok(()));
    assert_eq!(whole(one(257)), Err(ChunkExtension));
    assert_eq!(whole(one(256).repeat(64)), Ok(()));
    assert_eq!(whole(one(256).repeat(64) + &one(2)), Err(ChunkExtension));
}

#[test]
fn trailers_are_kept_as_whole_lines() {
    let bytes = b"1\r\na\r\n0\r\nGrpc-Status: 0\r\nX:\t y \r\nEmpty:\r\n\r\nGET";
    let (body, trailers, consumed) = all_cuts(bytes).unwrap();
    assert_eq!((&body[..], consumed), (&b"a"[..], bytes.len() - 3));
    assert_eq!(trailers, b"Grpc-Status: 0\r\nX:\t y \r\nEmpty:\r\n");
    let ours = b"0\r\nA: 1\r\nDate: x\r\nVia: x\r\nServer: x\r\nX_Y: z\r\nProxy: x\r\nB: 2\r\n\r\n";
    assert_eq!(all_cuts(ours).unwrap().1, b"A: 1\r\nB: 2\r\n");
}

#[test]
fn trailers_follow_the_rules_of_fields() {
    for (line, error) in [
        ("A b: c\r\n", FieldName),
        ("nocolon\r\n", FieldName),
        (": x\r\n", FieldName),
        ("A : b\r\n", SpaceBeforeColon),
        (" A: b\r\n", Folded),
        ("A: b\r\n c\r\n", FieldName),
        ("A: b\r\n c: d\r\n", Folded),
        ("A: \0\r\n", FieldValue),
        ("A: \x7f\r\n", FieldValue),
        ("A: b\n", BareNewline),
        ("A: b\rc\r\n", BareNewline),
        ("A: b\r\r\n", BareNewline),
    ] {
        assert_eq!(all_cuts(format!("0\r\n{line}\r\n").as_bytes()), Err(error), "{line:?}");
    }
}

#[test]
fn trailers_frame_route_authorize_and_identify_nothing() {
    for name in [
        "Content-Length",
        "transfer-encoding",
        "HOST",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Upgrade",
        "Authorization",
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "WWW-Authenticate",
        "Cookie",
        "Set-Cookie",
        "X-Forwarded-For",
        "x-real-ip",
        "Forwarded",
        "Expect",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "Range",
        "Max-Forwards",
    ] {
        assert_eq!(all_cuts(format!("0\r\n{name}: x\r\n\r\n").as_bytes()), Err(TrailerRefused), "{name}");
    }
}

#[test]
fn trailers_are_bounded() {
    let lines = |count: usize| format!("0\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert!(decode(lines(31).as_bytes(), 7).is_ok());
    assert!(decode(lines(32).as_bytes(), 7).is_ok());
    assert_eq!(decode(lines(33).as_bytes(), 7), Err(TrailersTooLarge));
    let long = |length: usize| format!("0\r\nA:{}\r\n\r\n", "b".repeat(length - 4));
    for size in [1, 100, 20_000] {
        assert!(decode(long(8191).as_bytes(), size).is_ok());
        assert!(decode(long(8192).as_bytes(), size).is_ok());
        assert_eq!(decode(long(8193).as_bytes(), size), Err(TrailersTooLarge), "{size}");
    }
    assert_eq!(TrailersTooLarge.status(), 431);
}

#[test]
fn a_chunk_in_one_piece_takes_one_call() {
    let chunk = ChunkedDecoder::new().decode(b"5\r\nhello\r\n0\r\n\r\nGET").unwrap();
    assert_eq!((chunk.consumed, chunk.data, chunk.progress), (15, 3..8, Progress::Done));
    let chunk = ChunkedDecoder::new().decode(b"").unwrap();
    assert_eq!((chunk.consumed, chunk.data, chunk.progress), (0, 0..0, Progress::More));
}

#[test]
fn what_is_written_is_canonical() {
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    };
    for (length, head) in
        [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (4096, "1000\r\n"), (0xab_cdef, "abcdef\r\n")]
    {
        let length = NonZeroUsize::new(length).unwrap();
        assert_eq!(written(&|out| encode_chunk_head(length, out)), head);
    }
    assert_eq!(written(&|out| encode_last_chunk(b"", out)).as_bytes(), LAST_CHUNK);
    assert_eq!(written(&|out| encode_last_chunk(b"A: b\r\n", out)), "0\r\nA: b\r\n\r\n");
    assert_eq!(written(&|out| encode_status_line(404, "Not Found", out)), "HTTP/1.1 404 Not Found\r\n");
    assert_eq!(written(&|out| push_field("A", b"b", out)), "A: b\r\n");
    assert_eq!((CHUNK_END, Method::Get.as_str()), (&b"\r\n"[..], "GET"));
}
