//! The record layer (RFC 8446 §5.1): one handshake message out of one or more records.

use std::borrow::Cow;

use super::{HELLO_MAX, HelloError};
use crate::cursor::Cursor;

/// So many records a ClientHello may span. Each look at the bytes walks over all of them again, so a client
/// that sends a byte a record must not be able to make that dear.
pub(super) const RECORDS_MAX: usize = 256;

const RECORD_HEADER: usize = 5;
const RECORD_PAYLOAD_MAX: usize = 1 << 14;
const MESSAGE_HEADER: usize = 4;

/// A whole ClientHello.
pub(super) struct Message<'a> {
    /// What stands behind the message's own header; borrowed where one record holds it all.
    pub(super) body: Cow<'a, [u8]>,
    /// How many bytes its records take.
    pub(super) consumed: usize,
}

/// Finds the ClientHello at the start of `bytes`, or `None` while it is not whole.
pub(super) fn join(bytes: &[u8]) -> Result<Option<Message<'_>>, HelloError> {
    let window = &bytes[..bytes.len().min(HELLO_MAX)];
    let Some(extent) = measure(window)? else {
        return if window.len() == HELLO_MAX { Err(HelloError::TooLong) } else { Ok(None) };
    };
    let records = &window[..extent.consumed];
    let body = if extent.records == 1 {
        Cow::Borrowed(&records[RECORD_HEADER + MESSAGE_HEADER..])
    } else {
        let mut payload = Vec::with_capacity(extent.consumed);
        let mut records = Cursor::new(records);
        while let Some(record) = next_record(&mut records)? {
            payload.extend_from_slice(record.present);
        }
        payload.drain(..MESSAGE_HEADER);
        Cow::Owned(payload)
    };
    Ok(Some(Message { body, consumed: extent.consumed }))
}

struct Extent {
    records: usize,
    consumed: usize,
}

/// Walks over the records until the message is whole, without copying.
fn measure(window: &[u8]) -> Result<Option<Extent>, HelloError> {
    let mut cursor = Cursor::new(window);
    let mut message = MessageHeader::default();
    for records in 1..=RECORDS_MAX {
        let Some(record) = next_record(&mut cursor)? else { return Ok(None) };
        message.feed(&record)?;
        if record.present.len() < record.declared {
            return Ok(None);
        }
        if message.length.is_some_and(|length| message.payload >= length) {
            return Ok(Some(Extent { records, consumed: window.len() - cursor.remaining() }));
        }
    }
    Err(HelloError::TooManyRecords)
}

/// A record's payload, as far as it is there.
struct Record<'a> {
    declared: usize,
    present: &'a [u8],
}

/// Reads one record; `None` when not even its header is whole.
fn next_record<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Record<'a>>, HelloError> {
    if let Some(content_type) = cursor.peek().filter(|content_type| *content_type != 0x16) {
        return Err(HelloError::RecordType(content_type));
    }
    // The version in between "MUST be ignored for all purposes" (RFC 8446 §5.1).
    let Some([_, _, _, high, low]) = cursor.array::<RECORD_HEADER>() else { return Ok(None) };
    let declared = usize::from(u16::from_be_bytes([high, low]));
    if declared == 0 || declared > RECORD_PAYLOAD_MAX {
        return Err(HelloError::RecordLength(declared));
    }
    let present = cursor.take(declared.min(cursor.remaining())).unwrap_or_default();
    Ok(Some(Record { declared, present }))
}

/// The message's type and length, which may themselves be cut by records.
#[derive(Default)]
struct MessageHeader {
    seen: Vec<u8>,
    /// Payload bytes that the records so far declare.
    payload: usize,
    /// The whole message with its header, once known.
    length: Option<usize>,
}

impl MessageHeader {
    fn feed(&mut self, record: &Record<'_>) -> Result<(), HelloError> {
        self.payload += record.declared;
        let missing = MESSAGE_HEADER - self.seen.len();
        self.seen.extend(record.present.iter().take(missing));
        if let Some(&kind) = self.seen.first().filter(|kind| **kind != 0x01) {
            return Err(HelloError::MessageType(kind));
        }
        let [_, high, middle, low] = self.seen[..] else { return Ok(()) };
        let length = MESSAGE_HEADER + u32::from_be_bytes([0, high, middle, low]) as usize;
        self.length = Some(length);
        if length + RECORD_HEADER > HELLO_MAX {
            return Err(HelloError::TooLong);
        }
        if self.payload > length { Err(HelloError::TrailingBytes) } else { Ok(()) }
    }
}
