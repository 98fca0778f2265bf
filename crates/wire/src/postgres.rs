//! PostgreSQL's protocol, version 3 (PostgreSQL documentation, "Frontend/Backend Protocol").
//!
//! Messages are read in place and never assembled: a [`Head`] says what a message is and how long, and
//! whoever forwards it needs no more for most of them. [`frontend`] reads and writes what clients say,
//! [`backend`] what servers say, [`sql`] knows what may outlive a transaction, [`reading`] what only reads;
//! before that come [`startup`] and [`authentication`], by [`scram`] or [`md5`]. Every length is checked,
//! and every read borrows from the input.

pub mod authentication;
pub mod backend;
mod cursor;
mod frame;
pub mod frontend;
mod harmless;
mod lexer;
pub mod md5;
mod needle;
pub mod options;
pub mod reading;
pub mod rows;
pub mod scram;
pub mod sql;
pub mod startup;

pub use frame::{BadFrame, HEADER, Head, MESSAGE_MAX};
