//! Messages of a client, as bytes (PostgreSQL's manual, "Message Formats").

/// Protocol 3.0, as every client before libpq 18 asks for.
pub const V3_0: u32 = 3 << 16;
/// Protocol 3.2.
pub const V3_2: u32 = V3_0 | 2;
/// The code of an SSLRequest.
pub const SSL_REQUEST: u32 = 80_877_103;
/// The code of a GSSENCRequest.
pub const GSSENC_REQUEST: u32 = 80_877_104;
/// The code of a CancelRequest.
pub const CANCEL_REQUEST: u32 = 80_877_102;

/// Any message: its type, its length and `body`.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &length(body, 4)[..], body].concat()
}

/// A message whose length field says `length`, whatever follows.
pub fn lying(kind: u8, length: i32, body: &[u8]) -> Vec<u8> {
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

/// A StartupMessage.
pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(text(name));
        body.extend(text(value));
    }
    body.push(0);
    [&length(&body, 4)[..], &body].concat()
}

/// A packet that holds a code alone: an SSLRequest or a GSSENCRequest.
pub fn request(code: u32) -> Vec<u8> {
    [8u32.to_be_bytes(), code.to_be_bytes()].concat()
}

/// A CancelRequest with what the server's BackendKeyData held: the process id and the key.
pub fn cancel(key_data: &[u8]) -> Vec<u8> {
    let body = [&CANCEL_REQUEST.to_be_bytes()[..], key_data].concat();
    [&length(&body, 4)[..], &body].concat()
}

/// Query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &text(sql))
}

/// Parse.
pub fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let types: Vec<u8> = types.iter().flat_map(|oid| oid.to_be_bytes()).collect();
    message(b'P', &[text(name), text(sql), count(types.len() / 4).to_vec(), types].concat())
}

/// Bind, with all parameters as text and every result in one `format`: 0 text, 1 binary.
pub fn bind(portal: &str, statement: &str, parameters: &[Option<&str>], format: i16) -> Vec<u8> {
    let mut body =
        [text(portal), text(statement), count(0).to_vec(), count(parameters.len()).to_vec()].concat();
    for parameter in parameters {
        match parameter {
            Some(value) => {
                body.extend(length(value.as_bytes(), 0));
                body.extend(value.as_bytes());
            }
            None => body.extend((-1i32).to_be_bytes()),
        }
    }
    body.extend(count(1));
    body.extend(format.to_be_bytes());
    message(b'B', &body)
}

/// Describe, of a statement (`S`) or a portal (`P`).
pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    message(b'D', &[vec![kind], text(name)].concat())
}

/// Execute; 0 rows are all rows.
pub fn execute(portal: &str, rows_max: i32) -> Vec<u8> {
    message(b'E', &[text(portal), rows_max.to_be_bytes().to_vec()].concat())
}

/// Close, of a statement (`S`) or a portal (`P`).
pub fn close(kind: u8, name: &str) -> Vec<u8> {
    message(b'C', &[vec![kind], text(name)].concat())
}

/// Sync.
pub fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// Flush.
pub fn flush() -> Vec<u8> {
    message(b'H', b"")
}

/// CopyData.
pub fn copy_data(bytes: &[u8]) -> Vec<u8> {
    message(b'd', bytes)
}

/// CopyDone.
pub fn copy_done() -> Vec<u8> {
    message(b'c', b"")
}

/// CopyFail.
pub fn copy_fail(why: &str) -> Vec<u8> {
    message(b'f', &text(why))
}

/// FunctionCall, with all arguments and the result as text.
pub fn function_call(function: u32, arguments: &[&str]) -> Vec<u8> {
    let mut body = [&function.to_be_bytes()[..], &count(0), &count(arguments.len())].concat();
    for argument in arguments {
        body.extend(length(argument.as_bytes(), 0));
        body.extend(argument.as_bytes());
    }
    body.extend(0i16.to_be_bytes());
    message(b'F', &body)
}

/// Terminate.
pub fn terminate() -> Vec<u8> {
    message(b'X', b"")
}

/// PasswordMessage.
pub fn password(password: &str) -> Vec<u8> {
    message(b'p', &text(password))
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn length(body: &[u8], more: i32) -> [u8; 4] {
    (i32::try_from(body.len()).expect("messages of tests are small") + more).to_be_bytes()
}

fn count(count: usize) -> [u8; 2] {
    i16::try_from(count).expect("lists of tests are short").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::{V3_0, bind, cancel, parse, query, startup, sync};

    #[test]
    fn messages_are_laid_out_as_the_manual_says() {
        assert_eq!(sync(), b"S\0\0\0\x04");
        assert_eq!(query("ab"), b"Q\0\0\0\x07ab\0");
        assert_eq!(parse("s", "x", &[23]), b"P\0\0\0\x0es\0x\0\0\x01\0\0\0\x17");
        assert_eq!(
            bind("", "s", &[Some("7"), None], 1),
            b"B\0\0\0\x18\0s\0\0\0\0\x02\0\0\0\x017\xff\xff\xff\xff\0\x01\0\x01"
        );
        assert_eq!(startup(V3_0, &[("user", "a")]), b"\0\0\0\x10\0\x03\0\0user\0a\0\0");
        assert_eq!(cancel(b"pid4key4"), b"\0\0\0\x10\x04\xd2\x16\x2epid4key4");
    }
}
