//! We log in to servers: by what each asks for, over TLS that proves who it is, and never by less.

use std::net::SocketAddr;

use tieline_testkit::{Authority, Cluster, Finished, Postgres, Tieline, Wanted};

use crate::login::{postgres_md5, psql};

const PENCIL: (&str, &str) = ("PGPASSWORD", "pencil");

const USERS: &[&str] = &[
    "set password_encryption = 'scram-sha-256'; create role scram login password 'pencil'",
    "set password_encryption = 'md5'; create role old login password 'pencil'",
    "create role clear login password 'pencil'; create role shown login",
];

const ACCESS: &[&str] = &[
    "host all scram 127.0.0.1/32 scram-sha-256",
    "host all old 127.0.0.1/32 md5",
    "host all clear 127.0.0.1/32 password",
    "hostssl all shown 127.0.0.1/32 cert",
];

/// A server, and before it a listener that lets everybody of this machine in; `upstream` says how we log in.
struct House {
    address: SocketAddr,
    tieline: Tieline,
    _postgres: Postgres,
}

impl House {
    fn open(postgres: Postgres, upstream: &str, users: &str) -> House {
        let endpoint = postgres.address();
        let auth = if users.is_empty() { "trust" } else { "md5" };
        let tieline = Tieline::start(&format!(
            "[listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"{auth}\"\n\
             [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n\
             [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{endpoint}\"]\n\
             timeouts = {{ acquire = \"10s\" }}\n{upstream}\n{users}"
        ));
        let address = tieline.listener_address("db");
        House { address, tieline, _postgres: postgres }
    }

    /// What the server calls whoever we logged in as.
    fn whoami(&self, user: &str) -> Finished {
        psql(self.address, user, "select session_user", &[PENCIL])
    }
}

/// A file that holds "pencil", and the folder that it lies in.
fn password() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.pw");
    std::fs::write(&path, "pencil\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let path = path.display().to_string();
    (folder, path)
}

#[test]
fn a_server_gets_the_proof_that_it_asks_for() {
    let (_folder, file) = password();
    for user in ["scram", "old"] {
        let postgres = Cluster { sql: USERS, access: ACCESS, ..Cluster::default() }.start();
        let house = House::open(postgres, &format!("user = \"{user}\"\npassword_file = \"{file}\""), "");
        assert_eq!(house.whoami("anybody").expect(user), user);
    }
}

#[test]
fn a_wrong_password_is_the_servers_own_error() {
    let (_folder, file) = password();
    std::fs::write(&file, "pencils\n").unwrap();
    let postgres = Cluster { sql: USERS, access: ACCESS, ..Cluster::default() }.start();
    let house = House::open(postgres, &format!("user = \"scram\"\npassword_file = \"{file}\""), "");
    let refused = house.whoami("anybody");
    assert!(refused.stderr.contains("password authentication failed for user \"scram\""), "{refused:?}");
}

#[test]
fn a_password_goes_in_the_clear_over_tls_alone() {
    let (_folder, file) = password();
    let authority = Authority::new();
    let pair = authority.server(&["localhost", "127.0.0.1"]);
    let start =
        || Cluster { sql: USERS, access: ACCESS, certificate: Some(&pair), ..Cluster::default() }.start();
    let login = format!("user = \"clear\"\npassword_file = \"{file}\"");
    let plain = House::open(start(), &login, "");
    let refused = plain.whoami("anybody");
    assert!(!refused.success() && !refused.stderr.contains("pencil"), "{refused:?}");
    let secured = format!("{login}\ntls = {{ ca = \"{}\" }}", authority.ca().display());
    let house = House::open(start(), &secured, "");
    assert_eq!(house.whoami("anybody").expect("clear over TLS"), "clear");
}

#[test]
fn a_server_proves_who_it_is_and_scram_is_bound_to_it() {
    let (_folder, file) = password();
    let (authority, other) = (Authority::new(), Authority::new());
    let pair = authority.server(&["localhost", "127.0.0.1"]);
    let start =
        || Cluster { sql: USERS, access: ACCESS, certificate: Some(&pair), ..Cluster::default() }.start();
    let login = |ca: &Authority| {
        format!("user = \"scram\"\npassword_file = \"{file}\"\ntls = {{ ca = \"{}\" }}", ca.ca().display())
    };
    let house = House::open(start(), &login(&authority), "");
    let ssl = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(psql(house.address, "anybody", ssl, &[]).expect("over TLS"), "t");
    let house = House::open(start(), &login(&other), "");
    assert!(!house.whoami("anybody").success(), "a server that nobody vouches for was believed");
    // A server without TLS is not spoken to without it.
    let bare = Cluster { sql: USERS, access: ACCESS, ..Cluster::default() }.start();
    let house = House::open(bare, &login(&authority), "");
    let refused = house.whoami("anybody");
    assert!(!refused.success() && !refused.stderr.contains("pencil"), "{refused:?}");
}

#[test]
fn a_certificate_of_ours_logs_us_in() {
    let authority = Authority::new();
    let (pair, ca) = (authority.server(&["localhost", "127.0.0.1"]), authority.ca());
    let own = authority.issue("shown", Wanted { common_name: "shown", serial: 9, ..Wanted::default() });
    let cluster = Cluster {
        sql: USERS,
        access: ACCESS,
        certificate: Some(&pair),
        client_ca: Some(&ca),
        ..Cluster::default()
    };
    let login = format!(
        "user = \"shown\"\ntls = {{ ca = \"{}\", certificate = \"{}\", key = \"{}\" }}",
        ca.display(),
        own.certificate.display(),
        own.key.display()
    );
    let house = House::open(cluster.start(), &login, "");
    assert_eq!(house.whoami("anybody").expect("by certificate"), "shown");
}

#[test]
fn what_a_client_proves_logs_it_in_where_the_server_keeps_the_same_verifier() {
    let postgres = Cluster { sql: USERS, access: ACCESS, ..Cluster::default() }.start();
    let kept = postgres.query("select rolpassword from pg_authid where rolname = 'scram'");
    let users = format!(
        "[user.scram]\nverifier = \"{kept}\"\n[user.old]\nverifier = \"{}\"\n",
        postgres_md5("pencil", "old")
    );
    let mut house = House::open(postgres, "", &users);
    for user in ["scram", "old"] {
        assert_eq!(house.whoami(user).expect(user), user);
    }
    house.tieline.stop();
    let log = house.tieline.log();
    assert!(!log.contains("pencil") && !log.contains(&kept), "{log}");
}

#[test]
fn what_a_client_proves_is_of_no_use_to_another_verifier_and_its_password_is() {
    let (_folder, file) = password();
    let postgres = || Cluster { sql: USERS, access: ACCESS, ..Cluster::default() }.start();
    let own = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
               WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let house = House::open(postgres(), "", &format!("[user.scram]\nverifier = \"{own}\"\n"));
    assert!(!house.whoami("scram").success());
    let house = House::open(postgres(), "", &format!("[user.scram]\npassword_file = \"{file}\"\n"));
    assert_eq!(house.whoami("scram").expect("by password"), "scram");
}
