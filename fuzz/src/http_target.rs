//! Targets and paths.

use tieline_wire::http1::{Limits, Path, PathRules, Room, match_form, parse_request};

/// What a route matches is what is passed on, and the form that it is matched in is its own form. An accepted
/// path hides no slash and no dots in it.
pub fn http_target(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        path(text);
    }
    for method in ["GET", "OPTIONS"] {
        let head = [method.as_bytes(), b" ", data, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        if let Some((passed_on, read, host)) = read(&head) {
            path(read.split('?').next().unwrap_or_default());
            let again = format!("{method} {passed_on} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(self::read(again.as_bytes()), Some((passed_on, read, host)));
        }
    }
}

/// What is passed on, path and query as they were read, and the host.
fn read(head: &[u8]) -> Option<(String, String, String)> {
    let mut room = Room::new();
    let request = parse_request(head, &Limits::default(), &mut room).ok()?;
    let mut passed_on = Vec::new();
    request.target.push(&mut passed_on);
    let query = request.target.query.map(|query| format!("?{query}")).unwrap_or_default();
    Some((
        String::from_utf8(passed_on).ok()?,
        format!("{}{query}", request.target.path),
        request.host.to_owned(),
    ))
}

fn path(path: &str) {
    let form = match_form(path);
    assert_eq!(match_form(&form), form);
    let all =
        PathRules { encoded_slash: true, backslash: true, nul: true, semicolon: true, dot_segments: true };
    let by_all = Path::checked_by(path, &all);
    if let Ok(checked) = Path::checked(path) {
        assert_eq!((checked.as_str(), by_all), (path, Ok(checked)));
        assert_eq!(form.matches('/').count(), path.matches('/').count(), "{path:?} as {form:?}");
        assert!(!form.split('/').any(|segment| segment == "." || segment == ".."), "{path:?} as {form:?}");
        assert!(!form.contains(['\0', '\\', ';']), "{path:?} as {form:?}");
    }
}
