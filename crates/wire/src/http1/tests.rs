mod chunks;
mod facts;
mod limits;
mod paths;
mod properties;
mod requests;
mod responses;

use super::*;

/// What the scan and the parser make of `bytes`, which must be one head.
fn request<T>(bytes: &[u8], look: impl FnOnce(&Request<'_, '_>) -> T) -> Result<T, HttpError> {
    let limits = Limits::default();
    let end = HeadScan::default().find(bytes, &limits)?.ok_or(HttpError::NoEnd)?;
    assert_eq!(end, bytes.len(), "{}", bytes.escape_ascii());
    parse_request(bytes, &limits, &mut Room::new()).map(|request| look(&request))
}

fn response<T>(
    bytes: &[u8],
    to: RequestKind,
    look: impl FnOnce(&Response<'_, '_>) -> T,
) -> Result<T, HttpError> {
    let limits = Limits::default();
    let end = HeadScan::default().find(bytes, &limits)?.ok_or(HttpError::NoEnd)?;
    assert_eq!(end, bytes.len(), "{}", bytes.escape_ascii());
    parse_response(bytes, &limits, &mut Room::new(), to).map(|response| look(&response))
}

/// A request whose second line is `Host: a` and whose others are `lines`.
fn with_fields(method: &str, lines: &str) -> Vec<u8> {
    format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

fn kinds_of(fields: &Fields<'_, '_>) -> Vec<(String, Kind)> {
    fields.iter().map(|field| (field.name.to_owned(), field.kind)).collect()
}
