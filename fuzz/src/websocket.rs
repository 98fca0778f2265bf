//! Frames of WebSockets.

use tieline_wire::Parsed;
use tieline_wire::websocket::{CONTROL_MAX, Decoder, HEAD_MAX, Said, Side, parse_head};

use crate::prefixes::assert_final;

/// Answers are final; a head has one form; bytes mean the same however they are cut; what is held is
/// bounded.
pub fn websocket(data: &[u8]) {
    assert_final(data, parse_head);
    if let Ok(Parsed::Done { value, consumed }) = parse_head(data) {
        let mut again = Vec::new();
        value.encode(&mut again);
        assert!(consumed <= HEAD_MAX && again == data[..consumed], "{value:?} is written another way");
    }
    for side in [Side::Client, Side::Server] {
        let whole = decode(side, data, data.len());
        for piece in [1, 3, 7] {
            assert_eq!(decode(side, data, piece), whole, "{side:?} in pieces of {piece}");
        }
    }
}

/// What `data`, given in pieces of so many bytes, says until it says nothing that could be understood.
fn decode(side: Side, data: &[u8], piece: usize) -> (Vec<u8>, Vec<Said>, bool) {
    let (mut decoder, mut inbox) = (Decoder::new(side), Vec::new());
    let (mut heard, mut others) = (Vec::new(), Vec::new());
    for piece in data.chunks(piece.max(1)) {
        inbox.extend_from_slice(piece);
        loop {
            let Ok((taken, said)) = decoder.take(&mut inbox) else { return (heard, others, true) };
            assert!(taken <= inbox.len());
            match said {
                Said::Nothing => {}
                Said::Bytes(range) => heard.extend_from_slice(&inbox[range]),
                other => {
                    assert!(!matches!(&other, Said::Ping(payload) if payload.len() > CONTROL_MAX));
                    others.push(other);
                }
            }
            if taken == 0 {
                break;
            }
            inbox.drain(..taken);
        }
        assert!(inbox.len() < HEAD_MAX, "only a head waits for more");
    }
    (heard, others, false)
}
