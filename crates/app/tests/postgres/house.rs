//! What the tests here stand on: a server with a few tables.

use std::cell::RefCell;
use std::net::SocketAddr;

use tieline_testkit::pg::Conversation;
use tieline_testkit::{Cluster, Postgres};

/// A server with what the scripts speak of, and a connection of the tests' own to it.
pub(crate) struct Server {
    pub(crate) postgres: Postgres,
    own: RefCell<Conversation>,
}

impl Server {
    pub(crate) fn start() -> Server {
        let settings = [("max_connections", "200")];
        let postgres = Cluster { settings: &settings, sql: FIXTURES, ..Cluster::default() }.start();
        let own = RefCell::new(Conversation::log_in(postgres.address(), "postgres", "postgres"));
        Server { postgres, own }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.postgres.address()
    }

    /// Runs SQL on the server itself; the first value of its answer, or what was said instead.
    pub(crate) fn ask(&self, sql: &str) -> String {
        self.own.borrow_mut().value(sql)
    }
}

const FIXTURES: &[&str] = &[
    "create table numbers as select n, 'number ' || n as t from generate_series(1, 1000) n",
    "create table dest (k int primary key, t text)",
    "create schema other",
    "create role tenant login",
    "create role ana superuser login",
    "create role bob superuser login",
    "create sequence counting",
    "grant select on numbers to tenant",
    "create function shout(what text) returns text language plpgsql \
     as $$ begin raise notice 'shouted: %', what; return upper(what); end $$",
    "create function tokyo() returns text language sql \
     as $$ select pg_catalog.set_config('timezone', 'Asia/Tokyo', false) $$",
    "create function complain(what text) returns int language plpgsql \
     as $$ begin raise exception 'complained: %', what using hint = 'be kind'; end $$",
];
