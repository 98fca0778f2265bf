use super::*;
use proptest::prelude::*;

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + body.len()).unwrap();
    [&length.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

fn read(bytes: &[u8]) -> Result<First<'_>, StartupError> {
    match parse(bytes)? {
        Parsed::Done { value, consumed } => {
            assert_eq!(consumed, bytes.len());
            Ok(value)
        }
        Parsed::Incomplete { .. } => panic!("{bytes:?} is not whole"),
    }
}

fn startup_of(bytes: &[u8]) -> Startup<'_> {
    match read(bytes) {
        Ok(First::Startup(startup)) => startup,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_told_apart() {
    assert_eq!(read(&ssl_request()), Ok(First::Ssl));
    assert_eq!(read(&packet(80_877_104, b"")), Ok(First::Gssenc));
    let cancel = packet(80_877_102, &[0, 0, 0, 7, 1, 2, 3, 4]);
    assert_eq!(read(&cancel), Ok(First::Cancel { process: 7, secret: &[1, 2, 3, 4] }));
    let longest = packet(80_877_102, &[7; 4 + SECRET_MAX]);
    assert!(matches!(read(&longest), Ok(First::Cancel { secret, .. }) if secret.len() == SECRET_MAX));
    for body in [0, 3, 4, 4 + SECRET_MAX + 1] {
        assert_eq!(read(&packet(80_877_102, &vec![7; body])), Err(StartupError::Length), "{body}");
    }
    assert_eq!(read(&packet(80_877_103, b"x")), Err(StartupError::Length));
}

#[test]
fn a_login_is_its_names_and_its_settings() {
    let body = b"user\0ana\0database\0orders\0options\0-c geqo=off\0application_name\0psql\0\0";
    let bytes = packet(196_608, body);
    let startup = startup_of(&bytes);
    assert_eq!((startup.user, startup.database), (&b"ana"[..], &b"orders"[..]));
    let names: Vec<&[u8]> = startup.settings.iter().map(|it| &*it.name).collect();
    assert_eq!(names, [&b"geqo"[..], b"application_name"], "those of `options` come first");
    assert_eq!((startup.version, startup.replication), (Version::V3_0, None));
    assert_eq!(startup.negotiation(), None);
    let bytes = packet(196_608, b"user\0ana\0\0");
    assert_eq!(startup_of(&bytes).database, b"ana");
}

#[test]
fn what_is_no_login_is_refused_for_what_is_wrong() {
    let cases: [(&[u8], StartupError); 7] = [
        (b"user\0ana\0", StartupError::Layout),
        (b"user\0ana", StartupError::Layout),
        (b"user\0ana\0\0x", StartupError::Layout),
        (b"\0", StartupError::NoUser),
        (b"user\0\xff\0\0", StartupError::Name),
        (b"user\0ana\0database\0a\nb\0\0", StartupError::Name),
        (b"user\0ana\0options\0-B 10\0\0", StartupError::Options("-B".into())),
    ];
    for (body, error) in cases {
        assert_eq!(read(&packet(196_608, body)), Err(error), "{body:?}");
    }
    for (code, version) in [(131_072, (2, 0)), (262_144, (4, 0)), (0, (0, 0))] {
        let (major, minor) = version;
        let version = Version { major, minor };
        assert_eq!(read(&packet(code, b"user\0a\0\0")), Err(StartupError::Version(version)));
    }
    for length in [0_u32, 4, 7, STARTUP_MAX as u32 + 1, u32::MAX] {
        assert_eq!(parse(&length.to_be_bytes()), Err(StartupError::Length), "{length}");
    }
}

#[test]
fn no_setting_poses_as_who_logs_in() {
    for name in ["user", "database", "options", "replication", "_pq_.x"] {
        let body = format!("user\0ana\0options\0-c {name}=postgres\0\0");
        assert_eq!(read(&packet(196_608, body.as_bytes())), Err(StartupError::Options(name.into())));
    }
}

#[test]
fn newer_versions_and_unknown_options_are_answered_once_and_others_not() {
    let asks = |code: u32, more: &[u8]| {
        let bytes = packet(code, &[b"user\0a\0", more, b"\0"].concat());
        let startup = startup_of(&bytes);
        startup.negotiation().map(|(version, unknown)| (version.code(), unknown.len()))
    };
    assert_eq!(asks(196_608, b""), None);
    assert_eq!(asks(196_609, b""), None, "3.1 was never released, and is 3.0");
    assert_eq!(asks(196_610, b""), None);
    assert_eq!(asks(196_611, b""), Some((196_610, 0)));
    assert_eq!(asks(196_608 + 9_999, b"_pq_.test_protocol_negotiation\0\0"), Some((196_610, 1)));
    assert_eq!(asks(196_608, b"_pq_.a\0x\0_pq_.b\0y\0"), Some((196_608, 2)));
    let mut out = Vec::new();
    push_negotiation(&mut out, Version::V3_2, &[b"_pq_.a"]);
    assert_eq!(out, b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.a\0");
}

#[test]
fn a_name_is_what_a_server_makes_of_it() {
    let long = "ä".repeat(40);
    let bytes = packet(196_608, format!("user\0{long}\0\0").as_bytes());
    assert_eq!(startup_of(&bytes).user, "ä".repeat(31).as_bytes(), "63 bytes end within a character");
}

#[test]
fn replication_is_what_servers_take_for_it() {
    let asks = |value: &str| {
        let bytes = packet(196_608, format!("user\0a\0replication\0{value}\0database\0d\0\0").as_bytes());
        match parse(&bytes) {
            Ok(Parsed::Done { value: First::Startup(startup), .. }) => {
                Some((startup.replication, startup.database.to_vec()))
            }
            Err(StartupError::Replication(_)) => None,
            other => panic!("{other:?}"),
        }
    };
    let (none, database) = (Vec::new(), b"d".to_vec());
    assert_eq!(asks("database"), Some((Some(Replication::Logical), database.clone())));
    for physical in ["true", "T", "1", "ON", "yes", "y"] {
        assert_eq!(asks(physical), Some((Some(Replication::Physical), none.clone())), "{physical}");
    }
    for usual in ["off", "of", "FALSE", "0", "no", "f"] {
        assert_eq!(asks(usual), Some((None, database.clone())), "{usual}");
    }
    for neither in ["", "o", "2", "Database", "truely", "onn"] {
        assert_eq!(asks(neither), None, "{neither:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_and_the_answer_is_final(
        bytes in proptest::collection::vec(any::<u8>(), 0..64), more: u8,
    ) {
        let mut longer = bytes.clone();
        longer.push(more);
        match parse(&bytes) {
            Ok(Parsed::Incomplete { at_most }) => {
                prop_assert!((bytes.len() + 1..=STARTUP_MAX).contains(&at_most));
            }
            answer => prop_assert_eq!(parse(&longer), answer),
        }
    }

    #[test]
    fn a_packet_is_incomplete_until_its_last_byte(cut in 0_usize..100) {
        let bytes = packet(196_608, b"user\0ana\0database\0orders\0application_name\0psql\0\0");
        let cut = cut % bytes.len();
        let whole = !matches!(parse(&bytes[..cut]), Ok(Parsed::Incomplete { .. }));
        prop_assert!(!whole);
    }
}
