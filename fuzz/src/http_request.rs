//! Heads of requests.

use tieline_wire::http1::{
    HeadScan, HttpError, Limits, Request, RequestBody, Room, Version, encode_request_line, parse_request,
    quick_request,
};

/// The end of the head does not depend on the cut; what is read quickly is read as always; what is read
/// is written again and reads the same; no line hides in another.
pub fn http_request(data: &[u8]) {
    let limits = Limits { line: 300, head: 1500, fields: 20 };
    let end = whole_end(data, &limits);
    let (mut room, mut quick_room) = (Room::new(), Room::new());
    let quick = quick_request(data, &limits, &mut quick_room);
    let Ok(Some(end)) = end else { return assert_eq!(quick, None) };
    let parsed = parse_request(&data[..end], &limits, &mut room);
    if let Some(quick) = quick {
        assert_eq!(Ok(quick), parsed.map(|request| (request, end)));
    }
    let Ok(request) = parsed else { return };
    is_sound(&request);
    let mut again = Vec::new();
    encode_request_line(&request.method, &request.target, &mut again);
    request.fields.copy_kept(|_| true, &mut again);
    again.extend_from_slice(b"\r\n");
    assert_eq!(HeadScan::default().find(&again, &limits), Ok(Some(again.len())), "{}", again.escape_ascii());
    let mut room = Room::new();
    match parse_request(&again, &limits, &mut room) {
        Ok(second) => {
            assert_eq!((second.method, second.body), (request.method, request.body));
            assert!(second.fields.iter().eq(request.fields.iter()));
        }
        // What goes out is HTTP/1.1, which asks for a host.
        Err(error) => assert!(
            request.version == Version::Http10
                && matches!(error, HttpError::HostMissing | HttpError::HostInvalid),
            "{error}: {}",
            again.escape_ascii()
        ),
    }
}

/// Where the scan finds the end at once, which is where it finds it byte by byte.
pub(crate) fn whole_end(data: &[u8], limits: &Limits) -> Result<Option<usize>, HttpError> {
    let whole = HeadScan::default().find(data, limits);
    let mut scan = HeadScan::default();
    let dripped =
        (0..=data.len()).map(|end| scan.find(&data[..end], limits)).find(|found| *found != Ok(None));
    assert_eq!(dripped.unwrap_or(Ok(None)), whole);
    whole
}

fn is_sound(request: &Request<'_, '_>) {
    assert!(request.target.path.starts_with('/') || request.target.path == "*");
    assert!(!request.host.is_empty() || request.version == Version::Http10);
    assert!(request.body != RequestBody::Chunked || request.version == Version::Http11);
    for field in request.fields.iter() {
        let (line, end) = field.line.split_at(field.line.len() - 2);
        assert!(end == b"\r\n" && !line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{field:?}");
        assert!(line.starts_with(field.name.as_bytes()) && line[field.name.len()] == b':', "{field:?}");
        assert_eq!(line[field.name.len() + 1..].trim_ascii(), field.value, "{field:?}");
    }
}
