//! What holds for every message.

use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::super::{
    CHUNK_END, ChunkedDecoder, HeadScan, HttpError, Limits, Path, PathRules, Progress, RequestKind, Room,
    encode_chunk_head, encode_last_chunk, encode_request_line, encode_status_line, match_form, parse_request,
    parse_response, quick_request, quick_response,
};

fn a_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z][A-Za-z0-9-]{0,20}",
        prop::sample::select(vec![
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Upgrade",
            "TE",
            "Expect",
            "Cookie",
            "X_Y",
            "Keep-Alive",
            "X-Forwarded-For",
            "Via",
            "Authorization",
            "Accept",
        ])
        .prop_map(str::to_owned),
    ]
}

fn a_value() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~\\t]{0,40}", "[0-9]{1,3}", "(close|chunked|upgrade|trailers|100-continue|x, y)"]
}

fn lines() -> impl Strategy<Value = String> {
    let line = (a_name(), a_value()).prop_map(|(name, value)| format!("{name}: {value}\r\n"));
    prop::collection::vec(line, 0..8).prop_map(|lines| lines.concat())
}

fn a_target() -> impl Strategy<Value = String> {
    prop_oneof![
        "/[!-~]{0,30}",
        "(http|https)://[a-z.]{1,9}(:[0-9]{1,5})?(/[a-z%]{0,9})?([?][a-z]{0,3})?",
        "[*]"
    ]
}

fn a_request() -> impl Strategy<Value = Vec<u8>> {
    let method = "(GET|POST|HEAD|OPTIONS|PUT|[A-Z]{1,9})";
    (method, a_target(), "[01]", lines()).prop_map(|(method, target, minor, lines)| {
        format!("{method} {target} HTTP/1.{minor}\r\nHost: a\r\n{lines}\r\n").into_bytes()
    })
}

fn a_response() -> impl Strategy<Value = Vec<u8>> {
    ("[01]", 100..600_u16, "[ -~]{0,20}", lines()).prop_map(|(minor, status, reason, lines)| {
        format!("HTTP/1.{minor} {status} {reason}\r\n{lines}\r\n").into_bytes()
    })
}

/// What heads are made of, in no order.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(&b"G /\r\n:a"[..]), 0..60)
}

/// Where the head ends when the bytes come up to each of `cuts`, then all.
fn scanned(bytes: &[u8], mut cuts: Vec<usize>) -> Result<Option<usize>, HttpError> {
    cuts.iter_mut().for_each(|cut| *cut %= bytes.len() + 1);
    cuts.sort_unstable();
    let mut scan = HeadScan::default();
    for end in cuts.into_iter().chain([bytes.len()]) {
        match scan.find(&bytes[..end], &Limits::default()) {
            Ok(None) => {}
            decided => return decided,
        }
    }
    Ok(None)
}

/// Whether the quick reader reads nothing, or what the other two make of it.
fn agrees_on_request(bytes: &[u8]) -> bool {
    let limits = Limits { line: 60, head: 300, fields: 6 };
    let (mut quick, mut slow) = (Room::new(), Room::new());
    let Some((request, length)) = quick_request(bytes, &limits, &mut quick) else { return true };
    let same_end = HeadScan::default().find(bytes, &limits) == Ok(Some(length));
    // Whoever asked the same host before, or another one, is understood alike.
    let alike = [request.host, "a"]
        .iter()
        .all(|known| quick_request(bytes, &limits, &mut Room::knowing(known)) == Some((request, length)));
    alike && same_end && parse_request(&bytes[..length], &limits, &mut slow) == Ok(request)
}

fn agrees_on_response(bytes: &[u8]) -> bool {
    let limits = Limits { line: 60, head: 300, fields: 6 };
    let (mut quick, mut slow) = (Room::new(), Room::new());
    let to = RequestKind::default();
    let Some((response, length)) = quick_response(bytes, &limits, &mut quick, to) else { return true };
    let same_end = HeadScan::default().find(bytes, &limits) == Ok(Some(length));
    same_end && parse_response(&bytes[..length], &limits, &mut slow, to) == Ok(response)
}

#[test]
fn what_is_usual_is_read_quickly() {
    let limits = Limits::default();
    let requests: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"POST /orders?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nAccept:*/*\r\n\r\nhello",
        b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HEAD /%20 HTTP/1.0\r\n\r\n",
    ];
    for bytes in requests {
        assert!(quick_request(bytes, &limits, &mut Room::new()).is_some(), "{}", bytes.escape_ascii());
    }
    let responses: [&[u8]; 2] =
        [b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 204 No Content\r\n\r\n"];
    for bytes in responses {
        let to = RequestKind::default();
        assert!(quick_response(bytes, &limits, &mut Room::new(), to).is_some(), "{}", bytes.escape_ascii());
    }
}

proptest! {
    #[test]
    fn a_head_ends_at_the_same_byte_however_it_comes(
        head in prop_oneof![a_request(), noise()],
        behind in prop::collection::vec(any::<u8>(), 0..20),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let bytes = [head, behind].concat();
        prop_assert_eq!(scanned(&bytes, cuts), scanned(&bytes, Vec::new()));
    }

    #[test]
    fn a_request_that_is_written_again_reads_the_same(head in a_request()) {
        let limits = Limits::default();
        let mut room = Room::new();
        if let Ok(request) = parse_request(&head, &limits, &mut room) {
            let mut again = Vec::new();
            encode_request_line(&request.method, &request.target, &mut again);
            request.fields.copy_kept(|_| true, &mut again);
            again.extend_from_slice(b"\r\n");
            if request.is_canonical() {
                let mut copied = Vec::new();
                request.fields.copy_head(|_| true, &mut copied);
                copied.extend_from_slice(b"\r\n");
                prop_assert_eq!(&copied, &again);
            }
            // A target of the absolute form loses its authority on purpose, HTTP/1.0 its version.
            if request.target.authority.is_none() && head.windows(10).any(|part| part == b" HTTP/1.1\r") {
                prop_assert_eq!(&again, &head);
            }
            let mut room = Room::new();
            match parse_request(&again, &limits, &mut room) {
                Ok(second) => {
                    prop_assert_eq!((second.method, second.body), (request.method, request.body));
                    prop_assert_eq!(second.target.path, request.target.path);
                    prop_assert_eq!(second.target.query, request.target.query);
                    prop_assert!(second.fields.iter().eq(request.fields.iter()));
                }
                Err(error) => prop_assert!(false, "{error}: {}", again.escape_ascii()),
            }
        }
    }

    #[test]
    fn a_response_that_is_written_again_reads_the_same(head in a_response(), was_head: bool, upgrade: bool) {
        let limits = Limits::default();
        let to = RequestKind { head: was_head, upgrade };
        let mut room = Room::new();
        if let Ok(response) = parse_response(&head, &limits, &mut room, to) {
            let mut again = Vec::new();
            encode_status_line(response.status, response.reason, &mut again);
            response.fields.copy_kept(|_| true, &mut again);
            again.extend_from_slice(b"\r\n");
            if response.is_canonical() {
                let mut copied = Vec::new();
                response.fields.copy_head(|_| true, &mut copied);
                copied.extend_from_slice(b"\r\n");
                prop_assert_eq!(&copied, &again);
            }
            let mut room = Room::new();
            let second = parse_response(&again, &limits, &mut room, to).unwrap();
            prop_assert_eq!((second.status, second.body), (response.status, response.body));
            prop_assert_eq!(second.reason, response.reason);
            prop_assert!(second.fields.iter().eq(response.fields.iter()));
        }
    }

    #[test]
    fn what_is_read_quickly_is_read_as_always(
        request in prop_oneof![a_request(), noise()],
        response in a_response(),
        behind in prop::collection::vec(any::<u8>(), 0..20),
        odd in any::<(prop::sample::Index, u8)>(),
        spoilt: bool,
    ) {
        for (mut bytes, is_request) in [(request, true), (response, false)] {
            if spoilt && !bytes.is_empty() {
                *odd.0.get_mut(&mut bytes) = odd.1;
            }
            bytes.extend_from_slice(&behind);
            let agrees = if is_request { agrees_on_request(&bytes) } else { agrees_on_response(&bytes) };
            prop_assert!(agrees, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn parsing_any_bytes_is_calm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let limits = Limits::default();
        let _ = parse_request(&bytes, &limits, &mut Room::new());
        let _ = parse_response(&bytes, &limits, &mut Room::new(), RequestKind::default());
    }

    #[test]
    fn a_body_survives_every_chunking_and_every_cut(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        extension in "(;[a-z]{1,5}(=(\"[ -!#-Z]{0,5}\"|[a-z]{1,5}))?){0,2}",
        trailers in "([A-Z][a-z]{9}: [a-z]{0,9}\r\n){0,3}",
        size in 1..50_usize,
    ) {
        let mut bytes = Vec::new();
        for part in &parts {
            encode_chunk_head(NonZeroUsize::new(part.len()).unwrap(), &mut bytes);
            bytes.splice(bytes.len() - 2..bytes.len() - 2, extension.bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(CHUNK_END);
        }
        encode_last_chunk(trailers.as_bytes(), &mut bytes);
        bytes.extend_from_slice(b"GET");
        let mut decoder = ChunkedDecoder::new();
        let (mut body, mut at, mut done) = (Vec::new(), 0, false);
        while !done {
            let piece = &bytes[at..(at + size).min(bytes.len())];
            let chunk = decoder.decode(piece).unwrap();
            body.extend_from_slice(&piece[chunk.data]);
            at += chunk.consumed;
            done = chunk.progress == Progress::Done;
        }
        prop_assert_eq!(body, parts.concat());
        prop_assert_eq!(decoder.trailers(), trailers.as_bytes());
        prop_assert_eq!(&bytes[at..], b"GET");
    }

    #[test]
    fn a_path_in_matching_form_is_in_matching_form(path in "/([a-z/.;%]|%[0-9A-Fa-f]{2}|[^a]){0,12}") {
        let form = match_form(&path);
        prop_assert_eq!(match_form(&form), form.as_ref());
    }

    #[test]
    fn a_plain_path_is_safe_and_its_own_form(path in "/([a-z/.;]|%(2e|2f|5c|00|3b|41|25)){0,8}") {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut room = Room::new();
        let request = parse_request(head.as_bytes(), &Limits::default(), &mut room).unwrap();
        if request.target.is_plain() {
            prop_assert!(Path::checked(&path).is_ok());
            prop_assert_eq!(match_form(&path), path.as_str());
        }
    }

    #[test]
    fn an_accepted_path_hides_nothing_in_its_form(path in "/([a-z/.;]|%(2e|2f|5c|00|3b|41|25)){0,8}") {
        if let Ok(checked) = Path::checked_by(&path, &PathRules::default()) {
            prop_assert_eq!(checked.as_str(), &path);
            let form = match_form(&path);
            prop_assert!(form.split('/').all(|segment| segment != "." && segment != ".."));
            prop_assert_eq!(form.matches('/').count(), path.matches('/').count());
        }
    }
}
