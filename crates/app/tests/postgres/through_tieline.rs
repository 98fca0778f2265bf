//! Every script through Tieline.

use crate::differential::{assert_only, differences};
use crate::house::Server;
use crate::proxied::{Mode, before};
use crate::script::Manner;

/// Servers enough for the clients of any script.
const POOL: usize = 4;

/// What cannot be the start of anything is answered, where the server closes without a word.
const STARTS: &[&str] = &[
    "a startup packet that is too long",
    "a startup packet that is too short",
    "a startup packet of no length",
    "a cancel cut short",
];

#[test]
fn through_tieline_in_session_mode_the_answers_are_the_same() {
    let server = Server::start();
    let (_tieline, address) = before(&server, Mode::Session, POOL);
    assert_only(STARTS, &differences(&server, address, Manner::Whole));
}

#[test]
fn through_tieline_in_transaction_mode_the_answers_are_the_same() {
    let server = Server::start();
    let (_tieline, address) = before(&server, Mode::Transaction, POOL);
    assert_only(STARTS, &differences(&server, address, Manner::Whole));
}

#[test]
fn through_tieline_byte_by_byte_the_answers_are_the_same() {
    let server = Server::start();
    let (_tieline, address) = before(&server, Mode::Transaction, POOL);
    assert_only(STARTS, &differences(&server, address, Manner::ByteByByte));
}

#[test]
fn through_tieline_from_server_to_server_the_answers_are_the_same() {
    let server = Server::start();
    let (_tieline, address) = before(&server, Mode::Transaction, POOL);
    assert_only(STARTS, &differences(&server, address, Manner::Stirred));
}
