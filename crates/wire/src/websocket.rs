//! Frames of a WebSocket (RFC 6455 §5) that is a pipe of bytes: binary messages whose boundaries mean
//! nothing.
//!
//! Owns the heads of frames, masks, and what may follow what. Refuses to collect messages: bytes are passed
//! on as they come, so nothing is held but one control frame of 125 bytes at the most. Start with
//! [`Decoder`].

use std::ops::Range;

use crate::Parsed;

/// Which end of the WebSocket this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// It asked for the upgrade, and masks what it sends.
    Client,
    /// It agreed to it, and masks nothing.
    Server,
}

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// More of a message.
    Continuation,
    /// The beginning of a binary message.
    Binary,
    /// The last frame.
    Close,
    /// To be answered by a [`Kind::Pong`] of the same bytes.
    Ping,
    /// The answer.
    Pong,
}

/// The head of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Whether it ends its message.
    pub last: bool,
    /// What it is.
    pub kind: Kind,
    /// What its bytes are masked by.
    pub mask: Option<[u8; 4]>,
    /// How many there are.
    pub length: u64,
}

/// Why bytes are no frames of such a WebSocket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WebSocketError {
    /// §5.2: an extension that was not agreed on.
    #[error("a frame uses an extension that was not agreed on")]
    Reserved,
    /// A kind of frame that does not exist, or text.
    #[error("a frame is neither binary nor about the connection")]
    Kind,
    /// §5.1: a client masks and a server does not.
    #[error("a frame is masked where it may not be, or is not where it must be")]
    Mask,
    /// §5.2: a length in more bytes than it needs, or beyond 63 bits.
    #[error("a frame's length is not written as it must be")]
    Length,
    /// §5.5: a control frame in pieces, or of more than 125 bytes.
    #[error("a control frame is in pieces or too long")]
    Control,
    /// §5.4: a continuation of nothing, or a new message within one.
    #[error("a frame does not follow from the one before it")]
    Order,
}

/// The longest head.
pub const HEAD_MAX: usize = 14;

/// The most that a control frame carries.
pub const CONTROL_MAX: usize = 125;

/// Reads the head at the beginning of `bytes`.
///
/// # Errors
/// [`WebSocketError`]; what follows cannot be made out then.
pub fn parse_head(bytes: &[u8]) -> Result<Parsed<Head>, WebSocketError> {
    let [first, second, ..] = *bytes else { return Ok(Parsed::Incomplete { at_most: HEAD_MAX }) };
    if first & 0x70 != 0 {
        return Err(WebSocketError::Reserved);
    }
    let kind = match first & 0x0f {
        0 => Kind::Continuation,
        2 => Kind::Binary,
        8 => Kind::Close,
        9 => Kind::Ping,
        10 => Kind::Pong,
        _ => return Err(WebSocketError::Kind),
    };
    let (last, short) = (first & 0x80 != 0, second & 0x7f);
    if kind.is_control() && (!last || usize::from(short) > CONTROL_MAX) {
        return Err(WebSocketError::Control);
    }
    let extended = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let (masked, begin) = (second & 0x80 != 0, 2 + extended);
    let consumed = begin + if masked { 4 } else { 0 };
    let Some(head) = bytes.get(..consumed) else { return Ok(Parsed::Incomplete { at_most: consumed }) };
    let written = head[2..begin].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
    let length = if extended == 0 { u64::from(short) } else { written };
    let least = match extended {
        2 => 126,
        8 => 1 << 16,
        _ => 0,
    };
    if length < least || length > i64::MAX as u64 {
        return Err(WebSocketError::Length);
    }
    let mask = head[begin..].try_into().ok();
    Ok(Parsed::Done { value: Head { last, kind, mask, length }, consumed })
}

impl Kind {
    fn is_control(self) -> bool {
        matches!(self, Kind::Close | Kind::Ping | Kind::Pong)
    }

    fn code(self) -> u8 {
        match self {
            Kind::Continuation => 0,
            Kind::Binary => 2,
            Kind::Close => 8,
            Kind::Ping => 9,
            Kind::Pong => 10,
        }
    }
}

impl Head {
    /// Writes it behind `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        out.push(if self.last { 0x80 } else { 0 } | self.kind.code());
        match self.length {
            0..126 => out.push(masked | self.length as u8),
            126..0x1_0000 => {
                out.push(masked | 126);
                out.extend_from_slice(&(self.length as u16).to_be_bytes());
            }
            _ => {
                out.push(masked | 127);
                out.extend_from_slice(&self.length.to_be_bytes());
            }
        }
        out.extend_from_slice(self.mask.as_ref().map_or(&[], |mask| &mask[..]));
    }
}

/// Masks `bytes`, or takes the mask off again (§5.3); `at` is where in the frame they stand.
pub fn apply_mask(mask: [u8; 4], at: u64, bytes: &mut [u8]) {
    let mut turned = mask;
    turned.rotate_left((at % 4) as usize);
    for piece in bytes.chunks_mut(4) {
        piece.iter_mut().zip(turned).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// Writes a frame of `payload` by `side` behind `out`, whole in itself. `mask` counts for a client alone.
pub fn encode_frame(side: Side, kind: Kind, mask: [u8; 4], payload: &[u8], out: &mut Vec<u8>) {
    let mask = (side == Side::Client).then_some(mask);
    Head { last: true, kind, mask, length: payload.len() as u64 }.encode(out);
    let begin = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(mask, 0, &mut out[begin..]);
    }
}

/// What a peer says, as it comes.
#[derive(Clone, Debug)]
pub struct Decoder {
    side: Side,
    /// The frame that is being read, and how much of it was.
    frame: Option<(Head, u64)>,
    /// Within a message of several frames.
    within: bool,
    control: Vec<u8>,
}

/// What was made out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// Nothing yet.
    Nothing,
    /// These of the bytes that were given, now without a mask.
    Bytes(Range<usize>),
    /// It asks for an answer of these bytes.
    Ping(Vec<u8>),
    /// It will say nothing more.
    Close,
}

impl Decoder {
    /// For what `side` receives.
    pub fn new(side: Side) -> Self {
        Self { side, frame: None, within: false, control: Vec::new() }
    }

    /// Takes what it can from the front of `bytes`: how much that was, and what it said. Nothing taken means
    /// that more is needed.
    ///
    /// # Errors
    /// [`WebSocketError`]; what follows cannot be made out then.
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<(usize, Said), WebSocketError> {
        let Some((head, done)) = self.frame else {
            return match parse_head(bytes)? {
                Parsed::Incomplete { .. } => Ok((0, Said::Nothing)),
                Parsed::Done { value, consumed } => {
                    self.begin(value)?;
                    let said = if value.length == 0 { self.end(value) } else { Said::Nothing };
                    Ok((consumed, said))
                }
            };
        };
        let count = usize::try_from(head.length - done).unwrap_or(usize::MAX).min(bytes.len());
        if let Some(mask) = head.mask {
            apply_mask(mask, done, &mut bytes[..count]);
        }
        let done = done + count as u64;
        self.frame = Some((head, done));
        let said = if head.kind.is_control() {
            self.control.extend_from_slice(&bytes[..count]);
            Said::Nothing
        } else if count > 0 {
            Said::Bytes(0..count)
        } else {
            Said::Nothing
        };
        let ended = done == head.length;
        Ok((count, if ended && head.kind.is_control() { self.end(head) } else { self.over(ended, said) }))
    }

    fn begin(&mut self, head: Head) -> Result<(), WebSocketError> {
        if head.mask.is_some() != (self.side == Side::Server) {
            return Err(WebSocketError::Mask);
        }
        match head.kind {
            Kind::Binary if self.within => return Err(WebSocketError::Order),
            Kind::Continuation if !self.within => return Err(WebSocketError::Order),
            Kind::Binary | Kind::Continuation => self.within = !head.last,
            Kind::Close | Kind::Ping | Kind::Pong => {}
        }
        self.frame = Some((head, 0));
        Ok(())
    }

    fn over(&mut self, ended: bool, said: Said) -> Said {
        if ended {
            self.frame = None;
        }
        said
    }

    /// What a frame says that is read to its end.
    fn end(&mut self, head: Head) -> Said {
        self.frame = None;
        let control = std::mem::take(&mut self.control);
        match head.kind {
            Kind::Ping => Said::Ping(control),
            Kind::Close => Said::Close,
            Kind::Pong | Kind::Binary | Kind::Continuation => Said::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All that `bytes` say, given in pieces as long as `cuts` say.
    fn decode(side: Side, bytes: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<Said>), WebSocketError> {
        let (mut decoder, mut inbox, mut heard, mut others) =
            (Decoder::new(side), Vec::new(), Vec::new(), Vec::new());
        let (mut left, mut cuts) = (bytes, cuts.iter().copied().cycle());
        while !left.is_empty() {
            let count = cuts.next().unwrap_or(left.len()).clamp(1, left.len());
            inbox.extend_from_slice(&left[..count]);
            left = &left[count..];
            loop {
                let (taken, said) = decoder.take(&mut inbox)?;
                match said {
                    Said::Bytes(range) => heard.extend_from_slice(&inbox[range]),
                    Said::Nothing => {}
                    other => others.push(other),
                }
                if taken == 0 {
                    break;
                }
                inbox.drain(..taken);
            }
        }
        Ok((heard, others))
    }

    #[test]
    fn the_frames_of_rfc_6455_section_5_7_are_read() {
        // "Hello" in pieces, binary instead of text; a ping and its masked pong.
        let pieces = [0x02, 3, 0x48, 0x65, 0x6c, 0x80, 2, 0x6c, 0x6f, 0x89, 5, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
        let (heard, others) = decode(Side::Client, &pieces, &[]).unwrap();
        assert_eq!((heard, others), (b"Hello".to_vec(), vec![Said::Ping(b"Hello".to_vec())]));
        let masked = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(decode(Side::Server, &masked, &[]).unwrap(), (Vec::new(), Vec::new()));
        let mut out = Vec::new();
        encode_frame(Side::Client, Kind::Pong, [0x37, 0xfa, 0x21, 0x3d], b"Hello", &mut out);
        assert_eq!(out, masked);
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        use WebSocketError::{Control, Kind, Length, Mask, Order, Reserved};
        for (side, bytes, expected) in [
            (Side::Client, &[0xc2, 0][..], Reserved),
            (Side::Client, &[0x81, 1, 0x61], Kind),
            (Side::Client, &[0x83, 0], Kind),
            (Side::Client, &[0x82, 0x80, 0, 0, 0, 0], Mask),
            (Side::Server, &[0x82, 0], Mask),
            (Side::Client, &[0x82, 126, 0, 125], Length),
            (Side::Client, &[0x82, 127, 0, 0, 0, 0, 0, 0, 255, 255], Length),
            (Side::Client, &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], Length),
            (Side::Client, &[0x09, 0], Control),
            (Side::Client, &[0x89, 126, 0, 126], Control),
            (Side::Client, &[0x80, 0], Order),
            (Side::Client, &[0x02, 0, 0x82, 0], Order),
        ] {
            assert_eq!(decode(side, bytes, &[]), Err(expected), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_said_is_heard_however_it_is_cut(
            frames in prop::collection::vec((0usize..3, prop::collection::vec(any::<u8>(), 0..700)), 0..12),
            mask in any::<[u8; 4]>(),
            client in any::<bool>(),
            cuts in prop::collection::vec(1usize..400, 1..9),
        ) {
            let (from, to) =
                if client { (Side::Client, Side::Server) } else { (Side::Server, Side::Client) };
            let (mut wire, mut said, mut pings) = (Vec::new(), Vec::new(), Vec::new());
            for (kind, mut payload) in frames {
                match kind {
                    0 => {
                        payload.truncate(CONTROL_MAX);
                        encode_frame(from, Kind::Ping, mask, &payload, &mut wire);
                        pings.push(Said::Ping(payload));
                    }
                    1 => {
                        payload.truncate(CONTROL_MAX);
                        encode_frame(from, Kind::Pong, mask, &payload, &mut wire);
                    }
                    _ => {
                        encode_frame(from, Kind::Binary, mask, &payload, &mut wire);
                        said.extend(payload);
                    }
                }
            }
            prop_assert_eq!(decode(to, &wire, &cuts), Ok((said, pings)));
        }

        #[test]
        fn a_head_is_read_as_it_was_written(
            last in any::<bool>(),
            mask in any::<Option<[u8; 4]>>(),
            length in 0..=i64::MAX as u64,
            shift in 0u32..63,
        ) {
            let head = Head { last, kind: Kind::Binary, mask, length: length >> shift };
            let mut out = Vec::new();
            head.encode(&mut out);
            prop_assert!(out.len() <= HEAD_MAX);
            prop_assert_eq!(parse_head(&out), Ok(Parsed::Done { value: head, consumed: out.len() }));
            for cut in 0..out.len() {
                let Ok(Parsed::Incomplete { at_most }) = parse_head(&out[..cut]) else { panic!("at {cut}") };
                prop_assert!(at_most > cut && out.len() <= at_most && at_most <= HEAD_MAX);
            }
        }

        #[test]
        fn anything_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (decode(Side::Client, &bytes, &[3]), decode(Side::Server, &bytes, &[7]));
        }
    }
}
