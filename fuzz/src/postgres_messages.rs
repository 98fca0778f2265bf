//! Messages of PostgreSQL's servers, and of its clients once they are logged in.

use tieline_wire::postgres::backend::{self, Notice, push_complete, push_error, push_key, push_parameter};
use tieline_wire::postgres::frontend::{self, Bind, Object, Parse, push_bind_head, push_parse};
use tieline_wire::postgres::{HEADER, Head, MESSAGE_MAX};

/// A length is possible or there is no message; what is read of a body is written, and reads the same; no
/// text breaks out of its field.
pub fn postgres_messages(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(head)) = Head::read(rest) {
        assert!(head.length <= MESSAGE_MAX);
        // Cutting a message never makes another one of it.
        assert_eq!(Head::read(&rest[..HEADER]), Ok(Some(head)));
        let Some(body) = rest.get(HEADER..head.whole()) else { break };
        of_servers(body);
        of_clients(body);
        rest = &rest[head.whole()..];
    }
    // Any bytes may be a body.
    of_servers(data);
    of_clients(data);
}

fn of_servers(body: &[u8]) {
    if let Some(notice) = Notice::read(body) {
        let again = body_of(|out| push_error(out, &notice));
        let again = Notice::read(&again).expect("what was written is read");
        assert_eq!((again.message, again.detail), (notice.message.or(again.message), notice.detail));
        assert_eq!((again.code, again.hint), (notice.code.or(again.code), notice.hint));
        assert_eq!(again.severity, notice.severity.or(again.severity));
    }
    if let Some((name, value)) = backend::parameter(body) {
        let again = body_of(|out| push_parameter(out, name, value));
        assert_eq!(backend::parameter(&again), Some((name, value)));
    }
    if let Some((process, secret)) = backend::key(body) {
        assert_eq!(backend::key(&body_of(|out| push_key(out, process, secret))), Some((process, secret)));
    }
    if let Some(tag) = backend::tag(body) {
        assert_eq!(backend::tag(&body_of(|out| push_complete(out, tag))), Some(tag));
    }
}

fn of_clients(body: &[u8]) {
    if let Some(parse) = Parse::read(body) {
        let again = body_of(|out| push_parse(out, parse.name, parse.sql, parse.types));
        assert_eq!(Parse::read(&again), Some(parse));
    }
    if let Some(bind) = Bind::read(body) {
        let mut out = Vec::new();
        push_bind_head(&mut out, bind.portal, bind.statement, bind.rest.len());
        out.extend_from_slice(bind.rest);
        assert_eq!(Bind::read(&out[HEADER..]), Some(bind));
    }
    if let Some(Object::Statement(name) | Object::Portal(name)) = Object::read(body) {
        assert!(name.len() + 2 == body.len(), "{body:?}");
    }
    if let Some(sql) = frontend::query(body) {
        assert_eq!(frontend::query(&body_of(|out| frontend::push_query(out, sql))), Some(sql));
    }
}

/// The body of the one message that is written.
fn body_of(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    let head = Head::read(&out).expect("a possible length").expect("a whole head");
    assert_eq!(head.whole(), out.len());
    out.split_off(HEADER)
}
