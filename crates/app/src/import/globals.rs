//! The keys of `[pgbouncer]`: those that are carried over are taken by name, the rest are told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ini::Setting;
use super::notes::Notes;

/// What stands in `[pgbouncer]`, the last of each key.
pub(super) struct Globals(BTreeMap<String, (String, usize)>);

impl Globals {
    pub(super) fn of(settings: &[Setting]) -> Self {
        let own = settings.iter().filter(|setting| setting.section == "pgbouncer");
        Self(own.map(|it| (it.key.to_ascii_lowercase(), (it.value.clone(), it.line))).collect())
    }

    /// The value of `key` and its line, if it is there and not empty.
    pub(super) fn take(&mut self, key: &str) -> Option<(String, usize)> {
        self.0.remove(key).filter(|(value, _)| !value.is_empty())
    }

    /// The line of `key`, if it is there.
    pub(super) fn line_of(&self, key: &str) -> Option<usize> {
        self.0.get(key).map(|(_, line)| *line)
    }

    /// The value of `key`, or `usual`.
    pub(super) fn text(&mut self, key: &str, usual: &str) -> String {
        self.take(key).map_or_else(|| usual.to_owned(), |(value, _)| value)
    }

    /// The whole number of `key`, or `usual`.
    pub(super) fn whole(&mut self, key: &str, usual: u32, notes: &mut Notes) -> u32 {
        let Some((value, line)) = self.take(key) else { return usual };
        value.parse().unwrap_or_else(|_| {
            notes.tell(line, format!("{key} = {value} is no number; {usual} is taken, which is its default"));
            usual
        })
    }

    /// The seconds of `key`, or `usual`; zero is for ever.
    pub(super) fn seconds(&mut self, key: &str, usual: u32, notes: &mut Notes) -> Option<Duration> {
        let seconds = match self.take(key) {
            None => f64::from(usual),
            Some((value, line)) => value.parse().unwrap_or_else(|_| {
                notes.tell(
                    line,
                    format!("{key} = {value} is no time; {usual} s is taken, which is its default"),
                );
                f64::from(usual)
            }),
        };
        Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero())
    }

    /// Tells of what was not taken.
    pub(super) fn tell_the_rest(self, notes: &mut Notes) {
        for (key, (value, line)) in self.0 {
            if !value.is_empty() {
                notes.tell(line, format!("{key} = {value}: {}", why(&key)));
            }
        }
    }
}

/// What becomes of a key that is not carried over.
fn why(key: &str) -> &'static str {
    match key {
        "auth_query" | "auth_dbname" => "not carried over: nobody is looked up without an auth_user",
        "auth_user" => "not carried over: `auth` asks for no passwords",
        "auth_hba_file" | "auth_ident_file" => {
            "has no equivalent; routes say who comes in from where (`allow`), and `auth` how"
        }
        "auth_ldap_options" => "has no equivalent: there is no LDAP",
        "min_pool_size" => "has no equivalent: connections are opened when they are needed",
        "reserve_pool_size" | "reserve_pool_timeout" => {
            "has no equivalent; give more important routes a higher `priority`"
        }
        "server_login_retry" => {
            "not needed: there is no fixed pause, and clients wait until their own deadline"
        }
        "server_check_query" | "server_check_delay" | "server_fast_close" => {
            "not needed: connections at rest are watched all the time"
        }
        "server_reset_query" => {
            "not needed: what a client changed is known, and undone before the next one has the server"
        }
        "ignore_startup_parameters" | "track_extra_parameters" => {
            "not needed: settings that clients begin with are kept for each of them"
        }
        "max_prepared_statements" => "not needed: prepared statements work in every mode",
        "server_round_robin" => "has no equivalent: the connection used last is used first",
        "cancel_wait_timeout" | "suspend_timeout" | "autodb_idle_timeout" => {
            "has no equivalent, and needs none"
        }
        "unix_socket_mode" => "means nothing without unix_socket_dir",
        "client_tls_cert_file" | "client_tls_key_file" | "client_tls_ca_file" => {
            "means nothing where client_tls_sslmode is not said, or \"disable\""
        }
        "scram_iterations" => "`tieline user password NAME --iterations` says that of each user",
        "unix_socket_group" => "has no equivalent; `unix_mode` and the folder say who reaches the socket",
        "application_name_add_host" => "has no equivalent; `tieline ls` and the log name each client",
        "logfile" | "syslog" | "syslog_ident" | "syslog_facility" | "verbose" | "log_stats"
        | "stats_period" => {
            "the server logs to its standard error (`server.log_level`), and metrics are at /metrics"
        }
        "log_connections" | "log_disconnections" | "log_pooler_errors" => {
            "not needed: the access log has a line for each (`server.access_log`)"
        }
        "pidfile" | "user" | "job_name" | "service_name" | "conffile" => {
            "has no equivalent: the service manager starts and names the process"
        }
        "client_tls_protocols"
        | "client_tls_ciphers"
        | "client_tls13_ciphers"
        | "client_tls_ecdhcurve"
        | "client_tls_dheparams"
        | "server_tls_protocols"
        | "server_tls_ciphers"
        | "server_tls13_ciphers" => "has no equivalent: TLS is 1.2 or 1.3, by AEAD with forward secrecy",
        "pkt_buf" | "max_packet_size" | "listen_backlog" | "sbuf_loopcnt" | "so_reuseport"
        | "tcp_defer_accept" | "tcp_socket_buffer" | "tcp_keepcnt" | "tcp_keepintvl" | "tcp_user_timeout" => {
            "has no equivalent, and needs none"
        }
        "peer_id" => "has no equivalent: one process uses every core",
        "disable_pqexec" => "has no equivalent",
        "resolv_conf" | "dns_max_ttl" | "dns_nxdomain_ttl" | "dns_zone_check_period" => {
            "has no equivalent of its own; see [server.dns]"
        }
        _ => "is not known, neither here nor to PgBouncer 1.25",
    }
}
