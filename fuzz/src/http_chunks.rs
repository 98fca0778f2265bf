//! Chunked bodies.

use std::num::NonZeroUsize;

use tieline_wire::http1::{
    CHUNK_END, ChunkedDecoder, HttpError, Progress, encode_chunk_head, encode_last_chunk,
};

/// What came of a body.
#[derive(PartialEq, Eq, Debug)]
struct Decoded {
    body: Vec<u8>,
    trailers: Vec<u8>,
    consumed: usize,
}

/// The first byte says how the rest is cut. Neither the body nor its end nor an error depends on that; what
/// is written again decodes to the same.
pub fn http_chunks(data: &[u8]) {
    let Some((&cut, data)) = data.split_first() else { return };
    let whole = decode(data, data.len());
    assert_eq!(decode(data, cut.into()), whole, "cut by {cut}");
    let Ok(Some(decoded)) = whole else { return };
    let mut again = Vec::new();
    for part in decoded.body.chunks(1 + usize::from(cut)) {
        let length = NonZeroUsize::new(part.len()).expect("a part has at least one byte");
        encode_chunk_head(length, &mut again);
        again.extend_from_slice(part);
        again.extend_from_slice(CHUNK_END);
    }
    encode_last_chunk(&decoded.trailers, &mut again);
    let consumed = again.len();
    assert_eq!(decode(&again, cut.into()), Ok(Some(Decoded { consumed, ..decoded })));
}

/// `None` while the body goes on.
fn decode(data: &[u8], cut: usize) -> Result<Option<Decoded>, HttpError> {
    let mut decoder = ChunkedDecoder::new();
    let (mut body, mut consumed) = (Vec::new(), 0);
    for piece in data.chunks(cut.max(1)) {
        let mut rest = piece;
        while !rest.is_empty() {
            let chunk = decoder.decode(rest)?;
            assert!(chunk.data.end <= chunk.consumed && chunk.consumed > 0);
            body.extend_from_slice(&rest[chunk.data]);
            consumed += chunk.consumed;
            if chunk.progress == Progress::Done {
                return Ok(Some(Decoded { body, trailers: decoder.trailers().to_vec(), consumed }));
            }
            rest = &rest[chunk.consumed..];
        }
    }
    Ok(None)
}
