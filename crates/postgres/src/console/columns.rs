//! The tables that the console shows: their columns, with PgBouncer's names, in its order and of its types.
//! What is ours alone stands behind.

/// A column's type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Text,
    Int4,
    Int8,
    Numeric,
}

/// A column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

macro_rules! tables {
    ($($(#[$meaning:meta])* $table:ident = $word:literal [$($kind:ident: $($column:ident)*);* $(;)?])*) => {
        /// What SHOW shows.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Shown {
            $($(#[$meaning])* $table,)*
        }

        impl Shown {
            /// The table that `word`, in lower case, stands for.
            pub(crate) fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Shown::$table),)*
                    _ => None,
                }
            }

            /// Its columns.
            pub(crate) fn columns(self) -> &'static [Column] {
                match self {
                    $(Shown::$table => const {
                        &[$($(Column { name: stringify!($column), kind: Kind::$kind }),*),*]
                    },)*
                }
            }
        }
    };
}

tables! {
    /// What this is.
    Version = "version" [Text: version]
    /// What is done for whom.
    Pools = "pools" [
        Text: database user;
        Int4: cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel
            sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us;
        Text: pool_mode load_balance_hosts;
    ]
    /// Who is connected.
    Clients = "clients" [
        Text: type user database replication state addr; Int4: port; Text: local_addr; Int4: local_port;
        Text: connect_time request_time; Int4: wait wait_us close_needed; Text: ptr link; Int4: remote_pid;
        Text: tls application_name; Int4: prepared_statements; Int8: id;
    ]
    /// Whom we are connected to.
    Servers = "servers" [
        Text: type user database replication state addr; Int4: port; Text: local_addr; Int4: local_port;
        Text: connect_time request_time; Int4: wait wait_us close_needed; Text: ptr link; Int4: remote_pid;
        Text: tls application_name; Int4: prepared_statements; Int8: id;
        Text: endpoint;
    ]
    /// All that was done, and how much in a second of late.
    Stats = "stats" [
        Text: database;
        Numeric: total_server_assignment_count total_xact_count total_query_count total_received total_sent
            total_xact_time total_query_time total_wait_time total_client_parse_count
            total_server_parse_count total_bind_count total_client_login_count
            avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent avg_xact_time
            avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count avg_bind_count
            avg_client_login_count;
    ]
    /// All that was done.
    StatsTotals = "stats_totals" [
        Text: database;
        Numeric: server_assignment_count xact_count query_count bytes_received bytes_sent xact_time
            query_time wait_time client_parse_count server_parse_count bind_count client_login_count;
    ]
    /// How much was done in a second of late.
    StatsAverages = "stats_averages" [
        Text: database;
        Numeric: server_assignment_count xact_count query_count bytes_received bytes_sent xact_time
            query_time wait_time client_parse_count server_parse_count bind_count client_login_count;
    ]
    /// The same over all databases, one figure a line.
    Totals = "totals" [Text: name; Numeric: value]
    /// Which databases clients can ask for.
    Databases = "databases" [
        Text: name host; Int4: port; Text: database force_user;
        Int4: pool_size min_pool_size reserve_pool_size server_lifetime; Text: pool_mode load_balance_hosts;
        Int4: max_connections current_connections max_client_connections current_client_connections paused
            disabled;
        Text: listener route; Int4: wanted;
    ]
    /// Who was here.
    Users = "users" [
        Text: name; Int4: pool_size reserve_pool_size; Text: pool_mode;
        Int4: max_user_connections current_connections max_user_client_connections
            current_client_connections;
    ]
    /// Settings of this listener, as PgBouncer calls them.
    Config = "config" [Text: key value default changeable]
    /// How many there are of everything.
    Lists = "lists" [Text: list; Int4: items]
    /// Both of them in one table, with places in buffers that nobody has here while nothing moves.
    Sockets = "sockets" [
        Text: type user database replication state addr; Int4: port; Text: local_addr; Int4: local_port;
        Text: connect_time request_time; Int4: wait wait_us close_needed; Text: ptr link; Int4: remote_pid;
        Text: tls application_name; Int4: prepared_statements; Int8: id;
        Int4: recv_pos pkt_pos pkt_remain send_pos send_remain pkt_avail send_avail;
    ]
    /// The same of those who do something, or wait.
    ActiveSockets = "active_sockets" [
        Text: type user database replication state addr; Int4: port; Text: local_addr; Int4: local_port;
        Text: connect_time request_time; Int4: wait wait_us close_needed; Text: ptr link; Int4: remote_pid;
        Text: tls application_name; Int4: prepared_statements; Int8: id;
        Int4: recv_pos pkt_pos pkt_remain send_pos send_remain pkt_avail send_avail;
    ]
    /// Which names of servers are followed.
    DnsHosts = "dns_hosts" [Text: hostname; Int8: ttl; Text: addrs]
    /// Of zones nobody is asked.
    DnsZones = "dns_zones" [Text: zonename; Int8: serial; Int4: count]
    /// What the tables of clients, servers and statements take.
    Mem = "mem" [Text: name; Int4: size used free memtotal]
    /// Other processes of the same pooler, which nobody has here.
    Peers = "peers" [Int4: peer_id; Text: host; Int4: port pool_size]
    /// What they are asked.
    PeerPools = "peer_pools" [
        Int4: peer_id cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login
    ]
    /// Whether anything is halted.
    State = "state" [Text: key value]
    /// What drivers ask before anything else.
    ClientEncoding = "client_encoding" [Text: client_encoding]
    /// The same.
    DateStyle = "datestyle" [Text: datestyle]
    /// The same.
    TimeZone = "timezone" [Text: timezone]
    /// The same.
    StandardStrings = "standard_conforming_strings" [Text: standard_conforming_strings]
}

impl Shown {
    /// What a session's setting is, where that is what is shown.
    pub(crate) fn setting(self) -> Option<&'static str> {
        Some(match self {
            Shown::ClientEncoding => "UTF8",
            Shown::DateStyle => "ISO",
            Shown::TimeZone => "GMT",
            Shown::StandardStrings => "on",
            _ => return None,
        })
    }
}
