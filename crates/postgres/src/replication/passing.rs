//! Where messages end in bytes that pass, however those are cut.

use tieline_wire::postgres::{BadFrame, HEADER, Head};

/// What is known of the message that passes just now.
#[derive(Debug, Default)]
pub(super) struct Passing {
    head: [u8; HEADER],
    /// So much of its head has passed.
    known: usize,
    /// So much of its body has not.
    left: usize,
}

impl Passing {
    /// More has passed: tells `ended` the kind of each message whose last byte was among it.
    ///
    /// # Errors
    /// What passes are no messages.
    pub(super) fn pass(&mut self, mut bytes: &[u8], mut ended: impl FnMut(u8)) -> Result<(), BadFrame> {
        while !bytes.is_empty() {
            if self.known < HEADER {
                let more = bytes.len().min(HEADER - self.known);
                self.head[self.known..self.known + more].copy_from_slice(&bytes[..more]);
                (self.known, bytes) = (self.known + more, &bytes[more..]);
                let Some(head) = Head::read(&self.head[..self.known])? else { return Ok(()) };
                self.left = head.length as usize;
            }
            let body = bytes.len().min(self.left);
            (self.left, bytes) = (self.left - body, &bytes[body..]);
            if self.left == 0 {
                self.known = 0;
                ended(self.head[0]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u8, length: usize) -> Vec<u8> {
        let stated = u32::try_from(length + 4).unwrap();
        [&[kind][..], &stated.to_be_bytes(), &vec![7; length]].concat()
    }

    proptest! {
        #[test]
        fn messages_end_where_they_end_however_they_are_cut(
            messages in prop::collection::vec((any::<u8>(), 0_usize..40), 0..8),
            cuts in prop::collection::vec(1_usize..30, 1..100),
        ) {
            let bytes: Vec<u8> =
                messages.iter().flat_map(|(kind, length)| message(*kind, *length)).collect();
            let (mut passing, mut ended, mut rest) = (Passing::default(), Vec::new(), &bytes[..]);
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                let passed = bytes.len() - more.len();
                passing.pass(piece, |kind| ended.push(kind)).unwrap();
                // As many as end within what has passed.
                let ends = messages.iter().scan(0, |at, (_, length)| {
                    *at += HEADER + length;
                    Some(*at)
                });
                prop_assert_eq!(ended.len(), ends.filter(|end| *end <= passed).count());
                rest = more;
            }
            prop_assert!(ended.iter().eq(messages.iter().map(|(kind, _)| kind)));
        }
    }

    #[test]
    fn what_is_no_message_is_told() {
        assert!(Passing::default().pass(b"Z\0\0\0\x03", |_| {}).is_err());
    }
}
