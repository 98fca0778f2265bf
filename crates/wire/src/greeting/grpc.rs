//! The health service of gRPC, `grpc.health.v1.Health/Check`: healthy when it says SERVING. In the words of
//! HTTP/1.1, as everything that goes through a connection that many share.

use super::Heard;
use super::text::quote;
use crate::http1::{
    ChunkedDecoder, HeadScan, HttpError, Limits, Progress, RequestKind, Response, ResponseBody, Room,
    parse_response,
};

/// The longest name of a service that is asked for, in bytes: its length takes one byte.
const SERVICE_MAX: usize = 100;

/// What is asked of `service`; empty for the server as a whole.
pub(super) fn request(service: &str, host: &str) -> Vec<u8> {
    let service = service.as_bytes();
    let service = &service[..service.len().min(SERVICE_MAX)];
    // Field 1, a string; a field that is empty is left out.
    let mut message = Vec::with_capacity(SERVICE_MAX + 2);
    if !service.is_empty() {
        message.extend_from_slice(&[0x0a, service.len() as u8]);
        message.extend_from_slice(service);
    }
    let mut bytes = format!(
        "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/grpc\r\n\
         TE: trailers\r\nConnection: TE\r\nUser-Agent: tieline-health\r\nContent-Length: {}\r\n\r\n",
        message.len() + 5
    )
    .into_bytes();
    // Not compressed, and its length in four bytes.
    bytes.extend_from_slice(&[0, 0, 0, 0, message.len() as u8]);
    bytes.extend_from_slice(&message);
    bytes
}

pub(super) fn hear(bytes: &[u8]) -> Heard {
    match read(bytes) {
        Ok(heard) => heard,
        Err(error) => Heard::Unhealthy(format!("no answer of gRPC: {error}")),
    }
}

fn read(bytes: &[u8]) -> Result<Heard, HttpError> {
    let limits = Limits::default();
    let Some(length) = HeadScan::default().find(bytes, &limits)? else { return Ok(Heard::Nothing) };
    let mut room = Room::new();
    let response = parse_response(&bytes[..length], &limits, &mut room, RequestKind::default())?;
    if response.is_interim() {
        return Ok(Heard::Skip(length));
    }
    if response.status != 200 {
        return Ok(Heard::Unhealthy(format!("answered with status {}", response.status)));
    }
    if let Some(status) = response.fields.get("grpc-status") {
        return Ok(Heard::Unhealthy(refusal(status, response.fields.get("grpc-message"))));
    }
    body(&response, &bytes[length..])
}

/// The message, and the trailers behind it.
fn body(response: &Response<'_, '_>, mut bytes: &[u8]) -> Result<Heard, HttpError> {
    if response.body != ResponseBody::Chunked {
        return Ok(Heard::Unhealthy("answered without a status of gRPC".into()));
    }
    let (mut decoder, mut message) = (ChunkedDecoder::new(), Vec::new());
    loop {
        let chunk = decoder.decode(bytes)?;
        message.extend_from_slice(&bytes[chunk.data]);
        bytes = &bytes[chunk.consumed..];
        if chunk.progress == Progress::Done {
            break;
        }
        if bytes.is_empty() {
            return Ok(Heard::Nothing);
        }
    }
    let trailer = |name: &str| {
        let mut lines = decoder.trailers().split(|byte| *byte == b'\n');
        lines.find_map(|line| {
            let (found, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
        })
    };
    match trailer("grpc-status") {
        Some(b"0") => Ok(verdict(&message)),
        Some(status) => Ok(Heard::Unhealthy(refusal(status, trailer("grpc-message")))),
        None => Ok(Heard::Unhealthy("answered without a status of gRPC".into())),
    }
}

fn refusal(status: &[u8], message: Option<&[u8]>) -> String {
    let known = match status {
        b"5" => " (no such service)",
        b"12" => " (no health service)",
        b"16" => " (it wants to know who asks)",
        _ => "",
    };
    format!("refused the check with status {}{known}: {}", quote(status), quote(message.unwrap_or_default()))
}

/// Field 1 of the message is the state; a message without fields says that it is not known.
fn verdict(message: &[u8]) -> Heard {
    match message.get(5..) {
        Some([0x08, 1]) => Heard::Healthy(&[]),
        Some([0x08, 2]) => Heard::Unhealthy("says NOT_SERVING".into()),
        Some([0x08, 3]) => Heard::Unhealthy("says SERVICE_UNKNOWN".into()),
        Some([] | [0x08, 0]) => Heard::Unhealthy("says UNKNOWN".into()),
        _ => Heard::Unhealthy("answered with a message that is none of the health service's".into()),
    }
}
