//! What stands in `[listener.NAME]` and `[upstream.NAME]` for PostgreSQL, in tables of its own.

use std::time::Duration;

use tieline_base::Bytes;

use crate::key::{Block, Kind, WHOLE_MAX, key};
use crate::words::Fallback;

const MILLISECOND: Duration = Duration::from_millis(1);

pub(crate) static CONSOLE: Block = Block {
    path: "listener.*.console",
    meaning: "Who may use the console: a database named \"tieline\", or \"pgbouncer\", that answers \
              PgBouncer's commands. It tells of the whole process.",
    keys: &[
        key("admin", Kind::OneOrMore(&Kind::SqlName))
            .or_else("Nobody may give orders there.")
            .means(
                "The user who may give orders there, as PAUSE, KILL and RELOAD are, or several. They may \
                 look too.",
            )
            .example("ana"),
        key("stats", Kind::OneOrMore(&Kind::SqlName))
            .or_else("Nobody else may look.")
            .means("The user who may look there (SHOW), and give no orders, or several.")
            .example(r#"["exporter", "grafana"]"#),
    ],
    later: &[],
};

pub(crate) static AUTH_QUERY: Block = Block {
    path: "listener.*.auth_query",
    meaning: "Where users are looked up that no [user.NAME] names: in a database, by a query.",
    keys: &[
        key("upstream", Kind::Name)
            .means(
                "The upstream that is asked. It names a `database`, and the `user` who may read there what \
                 servers keep of passwords.",
            )
            .example("lookup"),
        key("query", Kind::Text)
            .or(AUTH_QUERY_USUAL)
            .means(
                "What is asked: $1 is the name that a client logs in by. It answers with one row, of a name \
                 and what is kept of the password (a verifier as `tieline user password` makes them, or an \
                 MD5 hash), or with none. It runs with `search_path = pg_catalog`, so that other tables and \
                 functions are named with their schema.",
            )
            .example("SELECT * FROM pooler.user_lookup($1)"),
        key("ttl", Kind::Duration { least: Duration::from_millis(1) })
            .or("1m")
            .means(
                "How long what was found is believed: so long a changed password may still be refused, and \
                 an old one taken. That there is no such user is believed for 5 s at most.",
            )
            .example("10s"),
    ],
    later: &[],
};

/// Those who may log in now, with what is kept of their passwords.
const AUTH_QUERY_USUAL: &str = "SELECT rolname, rolpassword FROM pg_catalog.pg_authid \
                                WHERE rolname = $1 AND rolcanlogin \
                                AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())";

pub(crate) static REPLICAS: Block = Block {
    path: "upstream.*.replicas",
    meaning: "How servers of PostgreSQL that hold the same data are told apart. Where an upstream has a \
              `user`, here or of its own, and several endpoints, one with a `role`, or a route that says \
              `role` or `replica_reads`, each is asked over a connection of its own.",
    keys: &[
        key("every", Kind::Duration { least: Duration::from_millis(100) })
            .or("1s")
            .means("From one question to the next; after a failure they come ten times a second.")
            .example("500ms"),
        key("max_lag", Kind::Duration { least: MILLISECOND })
            .or("10s")
            .means(
                "A replica whose data is older serves no reads. Measured by asking: no finer than `every`.",
            )
            .example("30s"),
        key("max_lag_bytes", Kind::Size { least: Bytes(1), most: Bytes(1 << 50) })
            .or_else("`max_lag` alone counts.")
            .means("A replica that has not replayed so much of the primary's log serves no reads either.")
            .example("16MiB"),
        key("user", Kind::SqlName)
            .or_else("The `user` of the upstream.")
            .means(
                "Whom we log in as to ask, so that nothing else hangs on it. It needs no rights beyond \
                 logging in.",
            )
            .example("watcher"),
        key("password_file", Kind::Path)
            .or_else("The `password_file` of the upstream, or with a `user` here none.")
            .means(
                "The file of the password of `user`, readable by nobody else; a line break at its end is not \
                 part of it.",
            )
            .example("watcher.pw"),
        key("fallback", Kind::Words(Fallback::WORDS))
            .or("primary")
            .means("What becomes of reads for which no replica is fit.")
            .example("wait"),
    ],
    later: &[],
};

pub(crate) static DUE: Block = Block {
    path: "upstream.*.share",
    meaning: "What of the servers of an upstream of PostgreSQL is due to each of some users, where more \
              are wanted than there are. They are counted over all workers, \
              and by the users that clients log in as.",
    keys: &[
        key("user", Kind::OneOrMore(&Kind::SqlName))
            .or_else("It is due to each user that no other share names.")
            .means("To whom it is due: a user, or several, to each of them.")
            .example("web"),
        key("weight", Kind::Whole { least: 1, most: 1_000 })
            .or("1")
            .means("What each gets beside the weights of others who want more than they have.")
            .example("3"),
        key("floor", Kind::Whole { least: 1, most: WHOLE_MAX })
            .or_else("Nothing is kept.")
            .means(
                "How many servers are kept for each, whoever else wants them. All floors together must fit \
                 into `pool.size`.",
            )
            .example("4"),
        key("cap", Kind::Whole { least: 1, most: WHOLE_MAX })
            .or_else("As many as there are.")
            .means("How many servers each may have at once.")
            .example("5"),
    ],
    later: &[],
};
