//! The cookies of a request (RFC 6265 §4.2).

use tieline_wire::http1::{Fields, Kind};

/// The values of the cookies called `name`, in their order.
pub(crate) fn cookies<'b>(fields: &Fields<'_, 'b>, name: &str) -> impl Iterator<Item = &'b [u8]> {
    let lines = fields.iter().filter(|field| field.kind == Kind::Cookie).map(|field| field.value);
    let pairs = lines.flat_map(|line| line.split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        // Names are told apart by case.
        (pair[..equals].trim_ascii() == name.as_bytes()).then(|| pair[equals + 1..].trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tieline_wire::http1::{Limits, Room, parse_request};

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_every_field() {
        let head =
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; sid=2;xsid=3\r\ncookie: sid = 4=5; SID=6\r\n\r\n";
        let mut room = Room::new();
        let limits = Limits { line: 100, head: 1_000, fields: 10 };
        let request = parse_request(head.as_bytes(), &limits, &mut room).unwrap();
        let found: Vec<_> = cookies(&request.fields, "sid").collect();
        assert_eq!(found, [&b"2"[..], b"4=5"]);
        assert_eq!(cookies(&request.fields, "none").count(), 0);
    }
}
