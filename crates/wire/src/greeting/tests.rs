use proptest::prelude::*;

use super::{Conversation, Probe, REPLY_MAX, Step};

fn http() -> Probe {
    Probe::Http { path: "/healthz".into(), host: "shop.example.com".into() }
}

/// What a probe concludes from a server's bytes, and what it sent on the way.
#[derive(Debug)]
struct Outcome {
    verdict: Step,
    sent: Vec<u8>,
    farewell: Vec<u8>,
}

fn outcome<'a>(probe: &Probe, chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut conversation: Conversation = probe.start().unwrap();
    let (mut verdict, mut sent) = (Step::NeedMore, Vec::new());
    for chunk in chunks {
        verdict = conversation.on_bytes(chunk);
        match &verdict {
            Step::Send(bytes) => sent.extend_from_slice(bytes),
            Step::NeedMore => {}
            Step::Healthy | Step::Unhealthy(_) => break,
        }
    }
    Outcome { verdict, sent, farewell: conversation.farewell().to_vec() }
}

#[track_caller]
fn healthy(probe: &Probe, reply: &[u8]) {
    assert_eq!(outcome(probe, [reply]).verdict, Step::Healthy, "{:?}", String::from_utf8_lossy(reply));
}

#[track_caller]
fn unhealthy(probe: &Probe, reply: &[u8], why: &str) {
    assert_eq!(outcome(probe, [reply]).verdict, Step::Unhealthy(why.into()));
}

#[test]
fn tcp_needs_no_words() {
    assert!(Probe::Tcp.start().is_none());
}

#[test]
fn a_server_that_hangs_up_is_told_from_a_silent_one() {
    let mut conversation = Probe::Redis.start().unwrap();
    assert_eq!(conversation.on_close(), "closed the connection without an answer");
    conversation.on_bytes(b"+PO");
    assert_eq!(conversation.on_close(), "closed the connection after 3 bytes that decide nothing");
}

fn grpc() -> Probe {
    Probe::Grpc { service: "orders.Orders".into(), host: "shop".into() }
}

#[test]
fn grpc_asks_the_health_service_for_the_service() {
    let first = grpc().start().unwrap().first().to_vec();
    let head = first.len() - 20;
    let text = String::from_utf8(first[..head].to_vec()).unwrap();
    assert!(text.starts_with("POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: shop\r\n"), "{text}");
    assert!(text.ends_with("Content-Length: 20\r\n\r\n"), "{text}");
    assert_eq!(first[head..], *b"\0\0\0\0\x0f\x0a\x0dorders.Orders");
    let whole = Probe::Grpc { service: String::new(), host: "shop".into() };
    assert!(
        whole.start().unwrap().first().ends_with(b"\r\n\r\n\0\0\0\0\0"),
        "a field that is empty is left out"
    );
}

fn grpc_answer(message: &[u8], trailers: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n";
    let size = format!("{:x}\r\n", message.len());
    let end = format!("\r\n0\r\n{trailers}\r\n");
    [head.as_bytes(), size.as_bytes(), message, end.as_bytes()].concat()
}

#[test]
fn grpc_goes_by_what_the_health_service_says() {
    let ok = "grpc-status: 0\r\n";
    healthy(&grpc(), &grpc_answer(b"\0\0\0\0\x02\x08\x01", ok));
    unhealthy(&grpc(), &grpc_answer(b"\0\0\0\0\x02\x08\x02", ok), "says NOT_SERVING");
    unhealthy(&grpc(), &grpc_answer(b"\0\0\0\0\x00", ok), "says UNKNOWN");
    unhealthy(
        &grpc(),
        &grpc_answer(b"\0\0\0\0\x02\x08\x01", "grpc-status: 5\r\ngrpc-message: what?\r\n"),
        "refused the check with status 5 (no such service): what?",
    );
    let refused = b"HTTP/1.1 200 OK\r\ngrpc-status: 12\r\ncontent-length: 0\r\n\r\n";
    unhealthy(&grpc(), refused, "refused the check with status 12 (no health service): ");
    unhealthy(&grpc(), b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "answered with status 404");
    let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    unhealthy(&grpc(), plain, "answered without a status of gRPC");
}

#[test]
fn grpc_reads_an_answer_however_it_is_cut() {
    let answer = grpc_answer(b"\0\0\0\0\x02\x08\x01", "grpc-status: 0\r\n");
    assert_eq!(outcome(&grpc(), answer.chunks(1)).verdict, Step::Healthy);
    let mut cut = grpc().start().unwrap();
    assert_eq!(cut.on_bytes(&answer[..answer.len() - 1]), Step::NeedMore);
}

#[test]
fn http_asks_for_the_path_and_nothing_else() {
    let first = |path: &str, host: &str| {
        let probe = Probe::Http { path: path.into(), host: host.into() };
        String::from_utf8(probe.start().unwrap().first().to_vec()).unwrap()
    };
    assert_eq!(
        first("/healthz?full=1", "shop.example.com:80"),
        "GET /healthz?full=1 HTTP/1.1\r\nHost: shop.example.com:80\r\nUser-Agent: tieline-health\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n"
    );
    let hostile = first("x HTTP/1.1\r\nEvil: 1\r\n\r\n\u{e4}", "a\r\nEvil: 2");
    assert!(hostile.starts_with(
        "GET /x%20HTTP/1.1%0D%0AEvil:%201%0D%0A%0D%0A%C3%A4 HTTP/1.1\r\nHost: a%0D%0AEvil:%202\r\n"
    ));
    assert_eq!(hostile.matches("\r\n").count(), 6);
}

#[test]
fn http_is_healthy_from_200_to_399() {
    for reply in [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 204 No Content\r\n",
        "HTTP/1.1 302\r\nLocation: /\r\n\r\n",
        "HTTP/1.1 399 x\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n",
    ] {
        healthy(&http(), reply.as_bytes());
    }
    unhealthy(
        &http(),
        b"HTTP/1.1 503 Service Unavailable\r\n",
        r#"answered "HTTP/1.1 503 Service Unavailable""#,
    );
    unhealthy(&http(), b"HTTP/1.1 400\r\n", r#"answered "HTTP/1.1 400""#);
    unhealthy(&http(), b"HTTP/1.1 101 Switching\r\n", r#"answered "HTTP/1.1 101 Switching""#);
    unhealthy(&http(), b"HTTP/1.1 2000\r\n", r#"malformed status line "HTTP/1.1 2000""#);
    unhealthy(&http(), b"HTTP/1.1 OK\r\n", r#"malformed status line "HTTP/1.1 OK""#);
    unhealthy(&http(), b"SSH-2.0-OpenSSH_9.2\r\n", r#"no HTTP/1 answer: "SSH-2.0-OpenSSH_9.2""#);
}

/// A PostgreSQL message.
fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind], &(content.len() as u32 + 4).to_be_bytes()[..], content].concat()
}

fn postgres_error(code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{code}\0M{text}\0Fpostmaster.c\0\0").as_bytes())
}

#[test]
fn postgres_says_who_it_is_as_the_protocol_wants() {
    let startup = Probe::Postgres.start().unwrap().first().to_vec();
    assert_eq!(startup[..4], (startup.len() as u32).to_be_bytes());
    assert_eq!(startup[4..8], [0, 3, 0, 0]);
    assert!(startup.ends_with(b"application_name\0tieline-health\0\0"));
}

#[test]
fn postgres_is_healthy_when_it_takes_logins() {
    healthy(&Probe::Postgres, &message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"));
    healthy(&Probe::Postgres, &postgres_error("28000", "role \"tieline_health\" does not exist"));
    healthy(&Probe::Postgres, &postgres_error("28P01", "password authentication failed"));
    healthy(&Probe::Postgres, &postgres_error("3D000", "database does not exist"));
    let notice = message(b'N', b"SNOTICE\0Mhello\0\0");
    let negotiate = message(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]);
    healthy(&Probe::Postgres, &[&notice[..], &negotiate, &message(b'R', &[0, 0, 0, 5, 1, 2, 3, 4])].concat());

    let trusted = outcome(&Probe::Postgres, [&message(b'R', &[0; 4])[..]]);
    assert_eq!((trusted.verdict, &trusted.farewell[..]), (Step::Healthy, &b"X\0\0\0\x04"[..]));
}

#[test]
fn postgres_is_unhealthy_when_it_cannot_serve() {
    let starting = postgres_error("57P03", "the database system is starting up");
    unhealthy(&Probe::Postgres, &starting, "the database system is starting up (57P03)");
    let full = postgres_error("53300", "sorry, too many clients already");
    unhealthy(&Probe::Postgres, &full, "sorry, too many clients already (53300)");
    let stopping = postgres_error("57P01", "terminating");
    unhealthy(&Probe::Postgres, &stopping, "terminating (57P01)");
    unhealthy(&Probe::Postgres, &message(b'E', b"Mno code\0\0"), "no code (no SQLSTATE)");
    unhealthy(&Probe::Postgres, &message(b'E', b"C57P03"), " (no SQLSTATE)");
    unhealthy(&Probe::Postgres, b"Ecould not fork new process\n\0", "could not fork new process");
    unhealthy(&Probe::Postgres, b"SSH-2.0", "no PostgreSQL answer: it starts with byte 0x53");
    unhealthy(&Probe::Postgres, b"R\0\0\0\x01", "PostgreSQL message 'R' of impossible length");
    unhealthy(&Probe::Postgres, &message(b'R', b"ab"), "malformed authentication request");
}

/// A MySQL packet.
fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let [low, middle, high, _] = (payload.len() as u32).to_le_bytes();
    [&[low, middle, high, sequence], payload].concat()
}

fn mysql_greeting() -> Vec<u8> {
    let mut payload = b"\x0a8.0.36\0\x07\0\0\0abcdefgh\0\xff\xff\x21\x02\0\xff\xdf\x15".to_vec();
    payload.extend([0; 10]);
    payload.extend(b"ijklmnopqrst\0caching_sha2_password\0");
    packet(0, &payload)
}

fn mysql_error(sequence: u8, code: u16, text: &str) -> Vec<u8> {
    packet(sequence, &[&[0xff], &code.to_le_bytes()[..], text.as_bytes()].concat())
}

#[test]
fn mysql_introduces_itself_so_that_the_host_is_not_blocked() {
    let outcome = outcome(&Probe::MySql, [&mysql_greeting()[..]]);
    assert!(Probe::MySql.start().unwrap().first().is_empty());
    assert!(matches!(outcome.verdict, Step::Send(_)));
    assert_eq!(usize::from(outcome.sent[0]), outcome.sent.len() - 4);
    assert_eq!(outcome.sent[3], 1);
    assert!(outcome.sent.ends_with(b"\0\0tieline_health\0\0mysql_native_password\0"));
}

#[test]
fn mysql_is_healthy_when_it_decides_about_a_login() {
    let with = |reply: Vec<u8>| outcome(&Probe::MySql, [&mysql_greeting()[..], &reply]);
    let denied = with(mysql_error(2, 1045, "#28000Access denied for user 'tieline_health'@'localhost'"));
    assert_eq!(denied.verdict, Step::Healthy);

    let accepted = with(packet(2, &[0, 0, 0, 2, 0, 0, 0]));
    assert_eq!((accepted.verdict, &accepted.farewell[..]), (Step::Healthy, &[1, 0, 0, 0, 1][..]));
}

#[test]
fn mysql_is_answered_until_it_decides() {
    let reply = |payload: &[u8]| {
        let mut conversation = Probe::MySql.start().unwrap();
        conversation.on_bytes(&mysql_greeting());
        conversation.on_bytes(&packet(2, payload))
    };
    assert_eq!(reply(b"\xfemysql_native_password\0nonce\0"), Step::Send(packet(3, b"")));
    assert_eq!(reply(b"\xfecaching_sha2_password\0nonce\0"), Step::Send(packet(3, b"\0")));
    assert_eq!(reply(b"\x01\x04"), Step::Send(packet(3, b"\0")));
    assert_eq!(reply(b"\x01\x03"), Step::NeedMore);

    let switched = packet(2, b"\xfemysql_native_password\0nonce\0");
    let denied = mysql_error(4, 1045, "#28000Access denied");
    let outcome = outcome(&Probe::MySql, [&mysql_greeting()[..], &switched, &denied]);
    assert_eq!(outcome.verdict, Step::Healthy);
}

#[test]
fn mysql_is_unhealthy_when_it_turns_everyone_away() {
    unhealthy(&Probe::MySql, &mysql_error(0, 1040, "Too many connections"), "Too many connections (1040)");
    let blocked = mysql_error(0, 1129, "#HY000Host '10.0.0.1' is blocked\r\n");
    unhealthy(&Probe::MySql, &blocked, "Host '10.0.0.1' is blocked (1129)");
    let stopping = [mysql_greeting(), mysql_error(2, 1053, "#08S01Server shutdown in progress")].concat();
    unhealthy(&Probe::MySql, &stopping, "Server shutdown in progress (1053)");
    unhealthy(&Probe::MySql, &packet(0, b"\x09old"), "no MySQL greeting: protocol version 9");
    unhealthy(&Probe::MySql, &packet(0, b"\x0a8.0.36\0\x07\0"), "malformed MySQL greeting");
    unhealthy(&Probe::MySql, b"SSH-2.0-x", "no MySQL answer: it starts with a packet of 4739923 bytes");
    unhealthy(&Probe::MySql, &[0; 4], "no MySQL answer: it starts with a packet of 0 bytes");
    let odd = [mysql_greeting(), packet(2, &[0x42])].concat();
    unhealthy(&Probe::MySql, &odd, "unexpected MySQL answer to a login");
}

#[test]
fn redis_is_healthy_when_it_answers_or_asks_for_a_password() {
    assert_eq!(Probe::Redis.start().unwrap().first(), b"*1\r\n$4\r\nPING\r\n");
    healthy(&Probe::Redis, b"+PONG\r\n");
    healthy(&Probe::Redis, b"-NOAUTH Authentication required.\r\n");
    healthy(&Probe::Redis, b"-NOPERM this user has no permissions to run the 'ping' command\r\n");
    for refusal in [
        "-LOADING Redis is loading the dataset in memory",
        "-MASTERDOWN Link with MASTER is down",
        "-ERR max number of clients reached",
        "-DENIED Redis is running in protected mode",
        "+PONGO",
    ] {
        unhealthy(&Probe::Redis, format!("{refusal}\r\n").as_bytes(), refusal);
    }
    unhealthy(&Probe::Redis, b"HTTP/1.1", "no Redis answer: it starts with byte 0x48");
}

#[test]
fn a_server_that_talks_without_end_is_unhealthy() {
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(REPLY_MAX / 20);
    let why = format!("answered {REPLY_MAX} bytes that decide nothing");
    unhealthy(&http(), &interim, &why);
    unhealthy(&Probe::Redis, &[b'+'; REPLY_MAX], &why);
    unhealthy(&Probe::Postgres, &message(b'N', &[0; 20]).repeat(REPLY_MAX / 20), &why);
}

fn replies() -> impl Strategy<Value = (Probe, Vec<u8>)> {
    let http = prop_oneof![
        "HTTP/1\\.[01] [0-9]{3} [a-z]{0,5}\r\n".prop_map(String::into_bytes),
        "HTTP/1\\.1 10[0-3]\r\n[a-z]{0,5}\r\n\r\nHTTP/1\\.1 [2-5]00\r\n".prop_map(String::into_bytes),
    ];
    let codes = prop_oneof![Just("28000"), Just("57P03"), Just("53300"), Just("")];
    let postgres = prop_oneof![
        codes.prop_map(|code| [message(b'N', b"Mx\0\0"), postgres_error(code, "why")].concat()),
        any::<[u8; 6]>().prop_map(|content| message(b'R', &content)),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(|content| message(b'E', &content)),
    ];
    let mysql = prop_oneof![
        (1040u16..1060, any::<bool>()).prop_map(|(code, greeted)| {
            let greeting = if greeted { mysql_greeting() } else { Vec::new() };
            [greeting, mysql_error(2, code, "#08S01why")].concat()
        }),
        proptest::collection::vec(any::<u8>(), 1..20).prop_map(|payload| [
            mysql_greeting(),
            packet(2, &payload),
            mysql_error(4, 1045, "")
        ]
        .concat()),
    ];
    let redis = "[+-][A-Z]{0,6}[ a-z]{0,9}\r\n".prop_map(String::into_bytes);
    prop_oneof![
        http.prop_map(|reply| (self::http(), reply)),
        postgres.prop_map(|reply| (Probe::Postgres, reply)),
        mysql.prop_map(|reply| (Probe::MySql, reply)),
        redis.prop_map(|reply| (Probe::Redis, reply)),
    ]
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_how_the_bytes_were_cut(
        (probe, reply) in replies(), cuts in proptest::collection::vec(1usize..40, 1..40),
    ) {
        let whole = outcome(&probe, [&reply[..]]).verdict;
        let bytewise = outcome(&probe, reply.chunks(1)).verdict;
        let mut rest = &reply[..];
        let pieces = cuts.iter().map(|cut| {
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            rest = behind;
            piece
        });
        let pieces: Vec<&[u8]> = pieces.collect();
        let cut = outcome(&probe, pieces.into_iter().chain([rest])).verdict;
        for other in [bytewise, cut] {
            let same = match (&whole, &other) {
                (Step::NeedMore | Step::Send(_), Step::NeedMore | Step::Send(_)) => true,
                (whole, other) => whole == other,
            };
            prop_assert!(same, "{:?} against {:?}", whole, other);
        }
    }

    #[test]
    fn nothing_that_a_server_says_breaks_a_probe(reply in proptest::collection::vec(any::<u8>(), 0..200)) {
        for probe in [http(), Probe::Postgres, Probe::MySql, Probe::Redis] {
            if let Step::Unhealthy(why) = outcome(&probe, [&reply[..]]).verdict {
                prop_assert!(!why.contains(char::is_control) && why.len() < 1000, "{}", why);
            }
        }
    }
}
