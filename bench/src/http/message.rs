//! As much of HTTP/1.1 as it takes to know where a message ends and what its status is.

/// The length of the head in `bytes`, its empty line included; `None` if it is not whole.
pub(crate) fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The status of an answer.
pub(crate) fn status(head: &[u8]) -> Option<u16> {
    let digits = head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The length of the body that `head` announces.
pub(crate) fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let mut lines = head.split(|&byte| byte == b'\n');
    let line = lines.find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))?;
    std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{content_length, head_length, status};

    #[test]
    fn a_head_ends_at_its_empty_line() {
        let answer = b"HTTP/1.1 204 No\r\nContent-LENGTH: 17\r\n\r\nrest";
        let length = head_length(answer).unwrap();
        assert_eq!(&answer[length..], b"rest");
        assert_eq!((status(answer), content_length(answer)), (Some(204), Some(17)));
        assert_eq!((head_length(&answer[..length - 1]), content_length(b"GET / HTTP/1.1\r\n")), (None, None));
        assert_eq!(status(b"GET / HTTP/1.1"), None);
    }
}
