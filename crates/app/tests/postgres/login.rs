//! Clients log in to us: by what they prove, over what they ask for, and not otherwise.

use std::net::SocketAddr;
use std::process::Command;

use tieline_testkit::pg::{Conversation, frontend};
use tieline_testkit::{
    Authority, Cluster, Finished, PATIENCE, Postgres, Tieline, TlsClient, Wanted, finish, program, wait_until,
};

/// What `tieline user password` makes of "pencil" for `user`, as a block of the config.
fn block(user: &str) -> String {
    let script = format!("printf 'pencil\\n' | '{}' user password {user}", Tieline::binary().display());
    finish(Command::new("sh").args(["-c", &script])).expect("tieline user password") + "\n"
}

/// `psql` as `user`, with these settings of its environment: what `select` answers.
pub(crate) fn psql(at: SocketAddr, user: &str, select: &str, settings: &[(&str, &str)]) -> Finished {
    let mut command = Command::new(program("psql"));
    command.args(["-X", "-A", "-t", "-q", "-w", "-h", &at.ip().to_string(), "-p", &at.port().to_string()]);
    command.args(["-U", user, "-d", "postgres", "-c", select]);
    command.env("PGCONNECT_TIMEOUT", "30").env("PGSSLMODE", "disable").envs(settings.iter().copied());
    finish(&mut command)
}

const PENCIL: (&str, &str) = ("PGPASSWORD", "pencil");

/// A server that trusts us, and what stands before it: `listener` says how clients log in.
struct House {
    tieline: Tieline,
    address: SocketAddr,
    config: String,
    _postgres: Postgres,
}

impl House {
    fn open(listener: &str, users: &str) -> House {
        let sql = ["create role ana login", "create role bob login"];
        let postgres = Cluster { sql: &sql, ..Cluster::default() }.start();
        let endpoint = postgres.address();
        let config = format!(
            "[server]\nworkers = 2\n\
             [listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\n{listener}\n\
             [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n\
             [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{endpoint}\"]\n"
        );
        let tieline = Tieline::start(&format!("{config}{users}"));
        let address = tieline.listener_address("db");
        House { tieline, address, config, _postgres: postgres }
    }

    fn psql(&self, user: &str, settings: &[(&str, &str)]) -> Finished {
        psql(self.address, user, "select current_user", settings)
    }

    /// That `psql` is turned away with a line that holds `why`.
    #[track_caller]
    fn assert_refused(&self, user: &str, settings: &[(&str, &str)], why: &str) {
        let refused = self.psql(user, settings);
        assert!(!refused.success() && refused.stderr.contains(why), "{refused:?}");
    }
}

fn ana() -> String {
    block("ana")
}

#[test]
fn a_password_is_proved_by_scram_and_a_wrong_one_gets_nowhere() {
    let mut house = House::open("", &ana());
    assert_eq!(house.psql("ana", &[PENCIL]).expect("psql"), "ana");
    let wrong = "password authentication failed for user \"ana\"";
    house.assert_refused("ana", &[("PGPASSWORD", "pencils")], wrong);
    let stranger = "password authentication failed for user \"nobody\"";
    house.assert_refused("nobody", &[PENCIL], stranger);
    // Without a password psql goes away in the middle, which is nobody's fault.
    house.assert_refused("ana", &[], "no password supplied");
    let connections = house.tieline.cli(["ls", "--json"]).expect("ls");
    assert!(!connections.contains("pencil"), "{connections}");
    // All that it writes is written then.
    house.tieline.stop();
    assert!(!house.tieline.log().contains("pencil"));
}

#[test]
#[allow(clippy::disallowed_methods)] // the clock of a test
fn whoever_guesses_waits_before_the_next_guess_is_heard() {
    let house = House::open("", &ana());
    let wrong = "password authentication failed for user \"ana\"";
    let began = std::time::Instant::now();
    (0..5).for_each(|_| house.assert_refused("ana", &[("PGPASSWORD", "pencils")], wrong));
    // 200 ms before the fourth, and twice that before the fifth.
    assert!(began.elapsed() >= std::time::Duration::from_millis(600), "{:?}", began.elapsed());
}

#[test]
fn a_stranger_is_asked_as_a_user_is_and_the_same_each_time() {
    let house = House::open("", &ana());
    let asked = |user: &str| {
        let mut client = Conversation::connect(house.address);
        client.send(&frontend::startup(frontend::V3_0, &[("user", user)])).unwrap();
        let offered = client.message().unwrap().unwrap();
        assert_eq!((offered.kind, &offered.body[..4]), (b'R', &[0, 0, 0, 10][..]));
        let first = b"n,,n=,r=rOprNGfwEbeRWgbNEkqO";
        let choice = [&b"SCRAM-SHA-256\0"[..], &(first.len() as u32).to_be_bytes(), first].concat();
        client.send(&frontend::message(b'p', &choice)).unwrap();
        let challenge = String::from_utf8(client.message().unwrap().unwrap().body[4..].to_vec()).unwrap();
        challenge.split(',').skip(1).collect::<Vec<_>>().join(",")
    };
    let (user, stranger) = (asked("ana"), asked("nobody"));
    assert_eq!((asked("ana"), asked("nobody")), (user.clone(), stranger.clone()));
    assert_ne!(user, stranger);
    assert_eq!(user.len(), stranger.len());
    assert!(stranger.ends_with(",i=4096"), "{stranger}");
}

#[test]
fn old_clients_prove_a_password_by_md5_where_the_listener_says_so() {
    let bob = format!("[user.bob]\nverifier = \"{}\"\n", postgres_md5("pencil", "bob"));
    let house = House::open("auth = \"md5\"", &bob);
    assert_eq!(house.psql("bob", &[PENCIL]).expect("psql"), "bob");
    house.assert_refused("bob", &[("PGPASSWORD", "pencils")], "password authentication failed");
    house.assert_refused("nobody", &[PENCIL], "password authentication failed");
}

/// What PostgreSQL keeps of a password by MD5.
pub(crate) fn postgres_md5(password: &str, user: &str) -> String {
    let script = format!("printf '%s' '{password}{user}' | md5sum | cut -c1-32");
    format!("md5{}", finish(Command::new("sh").args(["-c", &script])).expect("md5sum").trim())
}

#[test]
fn a_certificate_logs_its_holder_in_and_nobody_else() {
    let authority = Authority::new();
    let (server, ca) = (authority.server(&["localhost", "127.0.0.1"]), authority.ca());
    let holder = authority.issue("ana", Wanted { common_name: "ana", serial: 7, ..Wanted::default() });
    let listener = format!(
        "auth = \"certificate\"\ntls = {{ certificate = \"{}\", key = \"{}\", client_ca = \"{}\" }}",
        server.certificate.display(),
        server.key.display(),
        ca.display()
    );
    let house = House::open(&listener, "");
    let (certificate, key) = (holder.certificate.display().to_string(), holder.key.display().to_string());
    let with = [("PGSSLMODE", "require"), ("PGSSLCERT", &certificate), ("PGSSLKEY", &key)];
    assert_eq!(house.psql("ana", &with).expect("psql"), "ana");
    house.assert_refused("bob", &with, "certificate authentication failed for user \"bob\"");
    house.assert_refused("ana", &[("PGSSLMODE", "require"), ("PGSSLCERT", "/nonexistent")], "certificate");
}

#[test]
fn tls_is_asked_for_bound_to_and_required() {
    let authority = Authority::new();
    let (server, ca) = (authority.server(&["localhost", "127.0.0.1"]), authority.ca().display().to_string());
    let listener = format!(
        "tls = {{ certificate = \"{}\", key = \"{}\" }}",
        server.certificate.display(),
        server.key.display()
    );
    let house = House::open(&listener, &ana());
    let full = [PENCIL, ("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &ca)];
    assert_eq!(house.psql("ana", &full).expect("psql"), "ana");
    let bound = [&full[..], &[("PGCHANNELBINDING", "require")]].concat();
    assert_eq!(house.psql("ana", &bound).expect("psql"), "ana");
    house.assert_refused("ana", &[PENCIL], "encrypted connections only");
    // What was said in the clear together with the request could be anybody's.
    let mut hasty = Conversation::connect(house.address);
    let startup = frontend::startup(frontend::V3_0, &[("user", "ana")]);
    hasty.send(&[frontend::request(frontend::SSL_REQUEST), startup].concat()).unwrap();
    assert!(matches!(hasty.until(b'Z').as_deref(), Ok([]) | Err(_)), "it was answered");
    // TLS at once is for those who say by ALPN what they want.
    let direct = |arguments: &[&str]| {
        let mut client = TlsClient::connect(house.address, arguments);
        client.await_end()
    };
    assert!(direct(&["-alpn", "http/1.1"]).contains("alert no application protocol"));
    let mut client = TlsClient::connect(house.address, ["-alpn", "postgresql"]);
    client.await_output("ALPN protocol: postgresql");
    client.send("nonsense\n");
    assert!(client.await_end().contains("invalid length of startup packet"), "{}", client.output());
    let unnamed = TlsClient::connect(house.address, [""; 0]).await_end();
    assert!(!unnamed.contains("startup packet"), "{unnamed}");
}

#[test]
fn tls_may_be_left_to_the_client() {
    let authority = Authority::new();
    let server = authority.server(&["localhost"]);
    let listener = format!(
        "tls_required = false\ntls = {{ certificate = \"{}\", key = \"{}\" }}",
        server.certificate.display(),
        server.key.display()
    );
    let house = House::open(&listener, &ana());
    for mode in ["disable", "prefer", "require"] {
        assert_eq!(house.psql("ana", &[PENCIL, ("PGSSLMODE", mode)]).expect(mode), "ana");
    }
}

#[test]
fn encryption_that_is_not_there_is_declined_as_often_as_it_is_asked_for() {
    let house = House::open("", &ana());
    let mut client = Conversation::connect(house.address);
    for code in [frontend::GSSENC_REQUEST, frontend::SSL_REQUEST] {
        client.send(&frontend::request(code)).unwrap();
        assert_eq!(client.byte().unwrap(), Some(b'N'));
    }
    client.send_in_pieces(&frontend::startup(frontend::V3_0, &[("user", "ana")]), 1).unwrap();
    assert_eq!(client.message().unwrap().unwrap().kind, b'R');
    house.assert_refused("ana", &[PENCIL, ("PGSSLMODE", "require")], "server does not support SSL");
    let mut insatiable = Conversation::connect(house.address);
    let requests = (0..20).map(|_| {
        insatiable.send(&frontend::request(frontend::SSL_REQUEST)).is_ok()
            && matches!(insatiable.byte(), Ok(Some(b'N')))
    });
    assert!(requests.take_while(|answered| *answered).count() < 10);
}

#[test]
fn newer_protocols_are_answered_once_with_what_we_speak() {
    let house = House::open("", &ana());
    let first = |version: u32, more: &[(&str, &str)]| {
        let mut client = Conversation::connect(house.address);
        let parameters = [&[("user", "ana")], more].concat();
        client.send(&frontend::startup(version, &parameters)).unwrap();
        let message = client.message().unwrap().unwrap();
        (message.kind, message.body)
    };
    assert_eq!(first(frontend::V3_0, &[]).0, b'R');
    assert_eq!(first(frontend::V3_2, &[]).0, b'R');
    let (kind, body) = first((3 << 16) + 9_999, &[("_pq_.test_protocol_negotiation", "")]);
    let expected = b"\0\x03\0\x02\0\0\0\x01_pq_.test_protocol_negotiation\0";
    assert_eq!((kind, body.as_slice()), (b'v', &expected[..]));
    assert_eq!(first(2 << 16, &[]).0, b'E');
}

#[test]
fn whoever_is_too_slow_is_let_go_and_holds_nobody_up() {
    let house = House::open("timeouts = { handshake = \"5s\" }", &ana());
    let mut slow = Conversation::connect(house.address);
    slow.send(&frontend::startup(frontend::V3_0, &[("user", "ana")])).unwrap();
    assert_eq!(slow.message().unwrap().unwrap().kind, b'R');
    assert!(matches!(slow.message(), Ok(None) | Err(_)), "it waits for ever");
    let told = || house.tieline.log().contains("timeout:handshake");
    assert!(wait_until(PATIENCE, told), "{}", house.tieline.log());
}

#[test]
fn who_is_taken_out_of_the_config_is_out_at_once() {
    let bob = block("bob");
    let house = House::open("", &format!("{}{bob}", ana()));
    let at = house.address;
    let sleeping =
        |user: &'static str| std::thread::spawn(move || psql(at, user, "select pg_sleep(600)", &[PENCIL]));
    let (ana_sleeps, bob_sleeps) = (sleeping("ana"), sleeping("bob"));
    let listed =
        |user: &str| house.tieline.cli(["ls", &format!("identity={user}"), "--json"]).stdout.contains(user);
    assert!(wait_until(PATIENCE, || listed("ana") && listed("bob")));
    house.tieline.reload(&format!("{}{bob}", house.config));
    let ended = ana_sleeps.join().unwrap();
    assert!(!ended.success(), "{ended:?}");
    assert!(listed("bob") && !bob_sleeps.is_finished(), "bob was ended as well");
    house.assert_refused("ana", &[PENCIL], "password authentication failed");
    assert!(house.tieline.cli(["kill", "identity=bob"]).success());
    bob_sleeps.join().unwrap();
}

#[test]
fn a_login_is_who_the_policy_asks_for() {
    let house = House::open("", &ana());
    let open = house.config.replace("access = \"public\"", "allow = { identity = [\"bob\"] }");
    house.tieline.reload(&format!("{open}{}", ana()));
    let refused = house.psql("ana", &[PENCIL]);
    assert!(!refused.success() && !refused.stderr.contains("password"), "{refused:?}");
    let open = house.config.replace("access = \"public\"", "allow = { identity = [\"ana\"] }");
    house.tieline.reload(&format!("{open}{}", ana()));
    assert_eq!(house.psql("ana", &[PENCIL]).expect("psql"), "ana");
}
