//! What is wrong with a message.

/// Why a message is refused. The connection it came on cannot be read any further: where the next message
/// would begin is not known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum HttpError {
    /// The first byte can begin neither a method nor a version.
    #[error("the first byte begins no HTTP/1 message")]
    NotHttp,
    /// There is no empty line at the end of what was given as a head.
    #[error("the head does not end with an empty line, or goes on behind it")]
    NoEnd,
    /// RFC 9112 §2.2: a CR without LF, or a LF without CR.
    #[error("a line ends with CR or LF alone")]
    BareNewline,
    /// More than one before the request line, or any before a status line.
    #[error("empty lines precede the first line")]
    EmptyLines,
    /// RFC 9112 §3: not `method SP target SP version`.
    #[error("the request line is not a method, a target and a version with one space between them")]
    RequestLine,
    /// RFC 9112 §4.
    #[error("the status line is not a version, a status from 100 to 999 and a reason")]
    StatusLine,
    /// A version of HTTP that is not 1.0 or 1.1.
    #[error("the version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
    /// The request line is above [`Limits::line`](super::Limits).
    #[error("the request line is too long")]
    LineTooLong,
    /// The head is above [`Limits::head`](super::Limits).
    #[error("the head is too large")]
    HeadTooLarge,
    /// There are more than [`Limits::fields`](super::Limits).
    #[error("there are too many fields")]
    TooManyFields,
    /// A tunnel to anywhere is not on offer.
    #[error("CONNECT is not served")]
    Connect,
    /// It would echo cookies and credentials.
    #[error("TRACE is not allowed")]
    Trace,
    /// RFC 9112 §3.2.
    #[error("the target has a form or a byte that is not allowed")]
    Target,
    /// RFC 9112 §5.2: obs-fold, or white space before the first field.
    #[error("a line of the head begins with white space")]
    Folded,
    /// RFC 9112 §5.1.
    #[error("white space stands before the colon of a field")]
    SpaceBeforeColon,
    /// No token, or no colon behind it.
    #[error("the name of a field is not a token followed by a colon")]
    FieldName,
    /// A control character.
    #[error("the value of a field contains a control character")]
    FieldValue,
    /// RFC 9112 §3.2: HTTP/1.1 requires one.
    #[error("there is no Host field")]
    HostMissing,
    /// Even if they are equal.
    #[error("there is more than one Host field")]
    HostRepeated,
    /// Neither name nor address, with or without a port.
    #[error("the host is not a name or an address with an optional port")]
    HostInvalid,
    /// RFC 9110 §11.6.2 allows one: of two, who checks may read another than who obeys.
    #[error("there is more than one Authorization field")]
    AuthorizationRepeated,
    /// RFC 9110 §8.6: not `1*DIGIT` that fits 64 bits.
    #[error("Content-Length is not one decimal number")]
    ContentLength,
    /// Even if they are equal.
    #[error("there is more than one Content-Length field")]
    ContentLengthRepeated,
    /// RFC 9112 §6.3: an attack, not a choice.
    #[error("Content-Length and Transfer-Encoding are both present")]
    TwoLengths,
    /// Neither `chunked` nor a list of codings.
    #[error("Transfer-Encoding is not exactly chunked")]
    TransferEncoding,
    /// A transfer coding that we do not know.
    #[error("Transfer-Encoding names a coding other than chunked")]
    CodingUnknown,
    /// RFC 9112 §6.1: whoever sends it does not know what it does.
    #[error("HTTP/1.0 has no Transfer-Encoding")]
    CodingInHttp10,
    /// Something else than a list of tokens, or of too many.
    #[error("the Connection field is not a short list of names")]
    Connection,
    /// `Connection: Host` would make the next hop lose what this one decided by.
    #[error("the Connection field names a field that must reach the other end")]
    ConnectionNames,
    /// RFC 9110 §10.1.1: something else than `100-continue`.
    #[error("the expectation is not 100-continue")]
    Expectation,
    /// RFC 9110 §15.2.2.
    #[error("the answer switches protocols, which the request did not ask for")]
    SwitchUnasked,
    /// RFC 9112 §7.1: not one to eight hexadecimal digits and the end of the line.
    #[error("the size of a chunk is not one to eight hexadecimal digits")]
    ChunkSize,
    /// RFC 9112 §7.1.1.
    #[error("an extension of a chunk is malformed or too long")]
    ChunkExtension,
    /// The chunk is longer than its size says.
    #[error("the end of a chunk is not followed by CRLF")]
    ChunkEnd,
    /// RFC 9110 §6.5.1: it frames, routes, authorizes or identifies, and comes too late for that.
    #[error("a trailer field may stand only in the head")]
    TrailerRefused,
    /// Above the bounds of a trailer section.
    #[error("the trailer section is too large")]
    TrailersTooLarge,
}

impl HttpError {
    /// What a client is told that sent this. If an endpoint sent it, the client is told 502 whatever it was.
    pub const fn status(self) -> u16 {
        match self {
            HttpError::Trace => 405,
            HttpError::LineTooLong => 414,
            HttpError::Expectation => 417,
            HttpError::HeadTooLarge | HttpError::TooManyFields | HttpError::TrailersTooLarge => 431,
            HttpError::Connect | HttpError::CodingUnknown => 501,
            HttpError::Version => 505,
            _ => 400,
        }
    }
}
