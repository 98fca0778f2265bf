//! Heads of responses.

use tieline_wire::http1::{
    Limits, RequestKind, ResponseBody, Room, encode_status_line, parse_response, quick_response,
};

use crate::http_request::whole_end;

/// The first byte says what was asked, the rest is the answer. Its end does not depend on the cut; what is
/// read is written again and reads the same; what has no body has none.
pub fn http_response(data: &[u8]) {
    let Some((&asked, data)) = data.split_first() else { return };
    let to = RequestKind { head: asked & 1 != 0, upgrade: asked & 2 != 0 };
    let limits = Limits { line: 300, head: 1500, fields: 20 };
    let (mut room, mut quick_room) = (Room::new(), Room::new());
    let quick = quick_response(data, &limits, &mut quick_room, to);
    let Ok(Some(end)) = whole_end(data, &limits) else { return assert_eq!(quick, None) };
    let parsed = parse_response(&data[..end], &limits, &mut room, to);
    if let Some(quick) = quick {
        assert_eq!(Ok(quick), parsed.map(|response| (response, end)));
    }
    let Ok(response) = parsed else { return };
    let bodiless = to.head || matches!(response.status, 100..=199 | 204 | 304);
    assert_eq!(response.body == ResponseBody::None, bodiless);
    assert!(!response.upgrade || to.upgrade);
    assert!(!(response.keep_alive && response.body == ResponseBody::UntilClose));
    let mut again = Vec::new();
    // A tab may stand in a reason that we read, not in one that we write.
    encode_status_line(response.status, &response.reason.replace('\t', " "), &mut again);
    response.fields.copy_kept(|_| true, &mut again);
    again.extend_from_slice(b"\r\n");
    let mut room = Room::new();
    let second = parse_response(&again, &Limits::default(), &mut room, to);
    let second = second.unwrap_or_else(|error| panic!("{error}: {}", again.escape_ascii()));
    assert_eq!((second.status, second.body), (response.status, response.body));
    assert!(second.fields.iter().eq(response.fields.iter()));
}
