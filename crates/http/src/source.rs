//! Where a body ends that somebody sends.

use tieline_wire::http1::{ChunkedDecoder, RequestBody, ResponseBody};

/// How the sender frames the body.
#[derive(Debug)]
pub(crate) enum Source {
    Nothing,
    Length(u64),
    Chunked(Box<ChunkedDecoder>),
    UntilClose,
}

impl From<RequestBody> for Source {
    fn from(body: RequestBody) -> Self {
        match body {
            RequestBody::None => Source::Nothing,
            RequestBody::Length(length) => Source::Length(length),
            RequestBody::Chunked => Source::Chunked(Box::new(ChunkedDecoder::new())),
        }
    }
}

impl From<ResponseBody> for Source {
    fn from(body: ResponseBody) -> Self {
        match body {
            ResponseBody::None => Source::Nothing,
            ResponseBody::Length(length) => Source::Length(length),
            ResponseBody::Chunked => Source::Chunked(Box::new(ChunkedDecoder::new())),
            ResponseBody::UntilClose => Source::UntilClose,
        }
    }
}
