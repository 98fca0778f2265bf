//! What is kept of clients, servers and statements.

use super::answer::{Cell, Row};
use crate::census::{ClientRow, Pool, ServerRow, clients, pools, servers};
use crate::server::Server;
use crate::statements::{self, Statement};
use crate::talk::Talk;

/// How many there are of what, and what they take; texts and names come on top.
pub(super) fn memory() -> Vec<Row> {
    let (clients, servers) = (clients().len(), servers().len());
    let rows = [
        ("client_cache", size_of::<Talk>() + size_of::<ClientRow>(), clients),
        ("server_cache", size_of::<Server>() + size_of::<ServerRow>(), servers),
        ("pool_cache", size_of::<Pool>(), pools().len()),
        ("prepared_statement_cache", size_of::<Statement>(), statements::count()),
    ];
    let row = |(name, size, used): (&str, usize, usize)| {
        let numbers = [size, used, 0, size * used].map(|number| Cell::Number(number as u64));
        [Cell::text(name)].into_iter().chain(numbers).collect()
    };
    rows.into_iter().map(row).collect()
}
