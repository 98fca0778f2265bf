//! A PostgreSQL listener before a real server, where this machine has one installed: many clients over few
//! servers, and what an operator sees of them.

mod client;
mod server;

use std::time::Duration;

use tieline_base::Address;

use super::{free_or_any, listener, shown, tried};
use crate::house::House;
use crate::passwords;
use client::Client;
use server::Server;

/// The server, and what it takes to reach it; or why there is none.
pub(super) struct Database(Result<Server, String>);

/// Who logs in at the listener, and by which password: everybody on this machine may know.
const USER: &str = "ana";
const PASSWORD: &str = "demo";

/// The database, and the only user whom its server knows beside its superuser.
const NAME: &str = "shop";

/// How many servers all clients share, and how many clients keep them busy.
const SERVERS: u32 = 4;
const CLIENTS: u32 = 20;

/// What the server holds, each on a line of its own.
const TABLES: &str = "\
create table stock (item text primary key, count int not null);
insert into stock values ('tea', 120), ('milk', 48), ('sugar', 300);
create table orders (id serial primary key, item text not null, at timestamptz default now());
alter table stock owner to shop;
alter table orders owner to shop;
";

impl Database {
    /// Starts a server of its own, in a folder of its own that goes with it.
    pub(super) fn start() -> Database {
        Database(Server::start(NAME, TABLES))
    }

    pub(super) fn config(&self) -> String {
        let Ok(server) = &self.0 else { return String::new() };
        let bind = free_or_any("127.0.0.1:6432");
        let verifier = passwords::verifier(PASSWORD.as_bytes(), passwords::usual_iterations()).to_text();
        let socket = server.socket();
        format!(
            r#"
[listener.db]
bind = "{bind}"
protocol = "postgres"
console = {{ admin = ["{USER}"] }}

[[listener.db.route]]
name = "shop-db"
database = "{NAME}"
upstream = "shop-db"
allow = {{ identity = ["{USER}"] }}

# Twenty clients share four servers, a transaction at a time.
[upstream.shop-db]
protocol = "postgres"
endpoints = ["unix:{socket}"]
database = "{NAME}"
user = "{NAME}"
pool = {{ mode = "transaction", size = {SERVERS} }}

# `tieline user password {USER}` makes such a line; the password is "{PASSWORD}".
[user.{USER}]
verifier = "{verifier}"
"#
        )
    }

    pub(super) fn what_there_is(&self, house: &House) -> String {
        match &self.0 {
            Ok(_) => format!(
                "  database   {} before a real PostgreSQL server: {CLIENTS} clients share
             {SERVERS} connections, a transaction at a time; user {USER}, password {PASSWORD}\n",
                shown(house, "db")
            ),
            Err(why) => format!("  database   left out: {why}\n"),
        }
    }

    pub(super) fn what_to_try(&self, house: &House) -> String {
        if self.0.is_err() {
            return String::new();
        }
        let at = |database: &str| format!("postgresql://{USER}:{PASSWORD}@{}/{database}", shown(house, "db"));
        [
            tried(&format!("psql {} -c 'table stock'", at(NAME)), ""),
            tried("", "what a client gets, over one of four servers"),
            tried(&format!("psql {} -c 'show pools'", at("tieline")), ""),
            tried("", "what PgBouncer's dashboards ask: who has a server, who waits"),
            tried("tieline ls listener=db", "its clients, each by what it does just now"),
        ]
        .concat()
    }

    /// Clients who order something now and then, a transaction each.
    pub(super) fn traffic(&self, house: &House) {
        let (true, Some(Address::Socket(address))) = (self.0.is_ok(), listener(house, "db")) else { return };
        for client in 0..CLIENTS {
            std::thread::spawn(move || {
                loop {
                    // Whoever was cut off comes again.
                    let _ = Client::log_in(address, USER, PASSWORD, NAME)
                        .and_then(|shopping| shop(shopping, client));
                    std::thread::sleep(Duration::from_secs(1));
                }
            });
        }
    }
}

fn shop(mut client: Client, number: u32) -> std::io::Result<()> {
    let item = ["tea", "milk", "sugar"][number as usize % 3];
    let sold = format!("update stock set count = greatest(count - 1, 0) where item = '{item}'");
    let ordered = format!("insert into orders (item) values ('{item}')");
    let kept = "delete from orders where id < (select max(id) - 1000 from orders)";
    loop {
        for sql in ["begin", &ordered, "select pg_sleep(0.1)", &sold, "commit", kept] {
            client.query(sql)?;
        }
        std::thread::sleep(Duration::from_millis(600 + 37 * u64::from(number)));
    }
}
