use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::{HEADER_MAX, Proxied, ProxyError, Version, encode, parse};
use crate::Parsed;

fn done(bytes: &[u8]) -> (Proxied, usize) {
    match parse(bytes).unwrap() {
        Parsed::Done { value, consumed } => (value, consumed),
        Parsed::Incomplete { at_most } => panic!("incomplete, at most {at_most}"),
    }
}

fn error(bytes: &[u8]) -> ProxyError {
    parse(bytes).unwrap_err()
}

/// A version 2 header of this command byte and family byte.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, family]);
    header.extend((block.len() as u16).to_be_bytes());
    header.extend(block);
    header
}

const INET_BLOCK: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0xdb, 0xa0, 0x01, 0xbb];

#[test]
fn reads_a_line_of_either_family() {
    let line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n";
    let (proxied, consumed) = done(line);
    assert_eq!(proxied.source, Some("192.168.0.1:56324".parse().unwrap()));
    assert_eq!(proxied.destination, Some("192.168.0.11:443".parse().unwrap()));
    assert_eq!(&line[consumed..], b"GET / HTTP/1.1\r\n");

    let (proxied, _) = done(b"PROXY TCP6 2001:DB8::1 ::ffff:10.0.0.1 0 65535\r\n");
    assert_eq!(proxied.source, Some("[2001:db8::1]:0".parse().unwrap()));
    assert_eq!(proxied.destination, Some("[::ffff:10.0.0.1]:65535".parse().unwrap()));
}

#[test]
fn unknown_means_the_connection_s_own_addresses() {
    for line in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN ff::1 \xff\xfe any thing\r\n"] {
        let (proxied, consumed) = done(line);
        assert_eq!((proxied.source, proxied.destination), (None, None));
        assert_eq!(consumed, line.len());
    }
}

#[test]
fn the_longest_line_is_107_bytes() {
    let ip = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY UNKNOWN {ip} {ip} 65535 65535\r\n");
    assert_eq!(line.len(), 107);
    assert_eq!(done(line.as_bytes()).1, 107);
    let longer = format!("PROXY UNKNOWN {ip} {ip} 65535 655350\r\n");
    assert_eq!(error(longer.as_bytes()), ProxyError::EndlessLine);
    assert_eq!(error(&longer.as_bytes()[..107]), ProxyError::EndlessLine);
    assert_eq!(parse(&longer.as_bytes()[..106]), Ok(Parsed::Incomplete { at_most: 107 }));
}

#[test]
fn a_line_that_is_not_exactly_right_is_refused() {
    use ProxyError::*;
    for (line, why) in [
        ("GET / HTTP/1.1\r\n", NoHeader),
        ("PROXY\r\n", NoHeader),
        ("proxy TCP4 1.1.1.1 1.1.1.2 1 2\r\n", NoHeader),
        ("PROXY \r\n", Line),
        ("PROXY UNKNOWNS\r\n", Line),
        ("PROXY UDP4 1.1.1.1 1.1.1.2 1 2\r\n", Line),
        ("PROXY  TCP4 1.1.1.1 1.1.1.2 1 2\r\n", Line),
        ("PROXY TCP4 1.1.1.1  1.1.1.2 1 2\r\n", Line),
        ("PROXY TCP4 1.1.1.1 1.1.1.2 1 2 \r\n", Line),
        ("PROXY TCP4 1.1.1.1 1.1.1.2 1\r\n", Line),
        ("PROXY TCP4 01.1.1.1 1.1.1.2 1 2\r\n", Address),
        ("PROXY TCP4 1.1.1 1.1.1.2 1 2\r\n", Address),
        ("PROXY TCP4 1.1.1.256 1.1.1.2 1 2\r\n", Address),
        ("PROXY TCP4 ::1 1.1.1.2 1 2\r\n", Address),
        ("PROXY TCP6 1.1.1.1 1.1.1.2 1 2\r\n", Address),
        ("PROXY TCP6 ::1%1 ::1 1 2\r\n", Address),
        ("PROXY TCP6 1::2::3 ::1 1 2\r\n", Address),
        ("PROXY TCP4 1.1.1.1 1.1.1.2 01 2\r\n", Port),
        ("PROXY TCP4 1.1.1.1 1.1.1.2 +1 2\r\n", Port),
        ("PROXY TCP4 1.1.1.1 1.1.1.2 1 65536\r\n", Port),
        ("PROXY TCP4 1.1.1.1 1.1.1.2 -1 2\r\n", Port),
        ("PROXY TCP4 1.1.1.1 1.1.1.2 1 \r\n", Port),
        ("PROXY TCP4 1.1.1.1 1.1.1.2 1 2\n", ControlCharacter),
        ("PROXY TCP4 1.1.1.1 1.1.1.2 1 2\rX", ControlCharacter),
        ("PROXY TCP4\t1.1.1.1 1.1.1.2 1 2\r\n", ControlCharacter),
    ] {
        assert_eq!(error(line.as_bytes()), why, "{line:?}");
    }
}

#[test]
fn reads_every_binary_family() {
    let (proxied, consumed) = done(&v2(0x21, 0x11, &INET_BLOCK));
    assert_eq!(proxied.version, Version::V2);
    assert_eq!(proxied.source, Some("192.0.2.1:56224".parse().unwrap()));
    assert_eq!(proxied.destination, Some("192.0.2.2:443".parse().unwrap()));
    assert_eq!(consumed, 28);

    let mut inet6 = [0; 36];
    (inet6[15], inet6[31], inet6[33], inet6[35]) = (1, 2, 80, 90);
    let (proxied, _) = done(&v2(0x21, 0x22, &inet6));
    assert_eq!(proxied.source, Some("[::1]:80".parse().unwrap()));
    assert_eq!(proxied.destination, Some("[::2]:90".parse().unwrap()));

    for (command, family, block) in [(0x21, 0x31, 216), (0x21, 0x00, 0), (0x21, 0x00, 7), (0x20, 0x00, 0)] {
        let (proxied, consumed) = done(&v2(command, family, &vec![0; block]));
        assert_eq!((proxied.source, proxied.destination), (None, None));
        assert_eq!(consumed, 16 + block);
    }
}

#[test]
fn local_is_valid_whatever_its_block_says() {
    let (proxied, consumed) = done(&v2(0x20, 0xff, b"anything"));
    assert_eq!((proxied.source, consumed), (None, 24));
}

#[test]
fn a_binary_header_that_is_not_exactly_right_is_refused() {
    use ProxyError::*;
    assert_eq!(error(b"\r\n\r\n\0\r\nQUIX"), NoHeader);
    assert_eq!(error(&v2(0x11, 0x11, &INET_BLOCK)), UnknownVersion(1));
    assert_eq!(error(&v2(0x22, 0x11, &INET_BLOCK)), Command(2));
    assert_eq!(error(&v2(0x21, 0x41, &INET_BLOCK)), Family(0x41));
    assert_eq!(error(&v2(0x21, 0x13, &INET_BLOCK)), Family(0x13));
    assert_eq!(error(&v2(0x21, 0x11, &INET_BLOCK[..11])), AddressesCut);
    assert_eq!(error(&v2(0x21, 0x21, &INET_BLOCK)), AddressesCut);
    assert_eq!(error(&v2(0x21, 0x31, &[0; 215])), AddressesCut);
    for field in [&[4u8][..], &[4, 0], &[4, 0, 1], &[4, 0xff, 0xff, 0], &[4, 0, 0, 4, 0]] {
        assert_eq!(error(&v2(0x21, 0x11, &[&INET_BLOCK, field].concat())), FieldCut, "{field:?}");
    }
}

#[test]
fn a_header_above_the_limit_is_refused_before_it_is_read() {
    let largest = v2(0x20, 0x00, &vec![0; HEADER_MAX - 16]);
    assert_eq!(done(&largest).1, HEADER_MAX);
    let larger = v2(0x20, 0x00, &vec![0; HEADER_MAX - 15]);
    assert_eq!(error(&larger[..16]), ProxyError::TooLong(HEADER_MAX + 1));
}

#[test]
fn the_checksum_must_match_where_there_is_one() {
    // Computed apart, by the definition: CRC-32C of the header with a zero checksum, a NOOP field before it.
    let fields = |checksum: [u8; 4]| [&INET_BLOCK[..], &[4, 0, 1, 9], &[3, 0, 4], &checksum].concat();
    let header = v2(0x21, 0x11, &fields([0x98, 0xaa, 0x7a, 0xdb]));
    assert_eq!(done(&header).1, header.len());
    for at in [0x10, 0x17, 0x1f, header.len() - 1] {
        let mut broken = header.clone();
        broken[at] ^= 1;
        assert_eq!(error(&broken), ProxyError::Checksum, "byte {at}");
    }
    let short = [&INET_BLOCK[..], &[3, 0, 3, 1, 2, 3]].concat();
    assert_eq!(error(&v2(0x21, 0x11, &short)), ProxyError::ChecksumField);
    let twice = [&fields([0x98, 0xaa, 0x7a, 0xdb])[..], &[3, 0, 4, 0, 0, 0, 0]].concat();
    assert_eq!(error(&v2(0x21, 0x11, &twice)), ProxyError::ChecksumField);
}

#[test]
fn writes_what_the_specification_prints() {
    let written = |version, source: &str, destination: &str| {
        let mut out = Vec::new();
        encode(version, source.parse().ok(), destination.parse().ok(), &mut out);
        out
    };
    let line = |source, destination| String::from_utf8(written(Version::V1, source, destination)).unwrap();
    assert_eq!(
        line("192.168.0.1:56324", "192.168.0.11:443"),
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    );
    assert_eq!(line("[2001:db8::1]:1", "10.0.0.1:2"), "PROXY TCP6 2001:db8::1 ::ffff:a00:1 1 2\r\n");
    assert_eq!(line("[::ffff:10.0.0.9]:1", "10.0.0.1:2"), "PROXY TCP4 10.0.0.9 10.0.0.1 1 2\r\n");
    assert_eq!(line("unix", "10.0.0.1:2"), "PROXY UNKNOWN\r\n");
    assert_eq!(written(Version::V2, "192.0.2.1:56224", "192.0.2.2:443"), v2(0x21, 0x11, &INET_BLOCK));
    assert_eq!(written(Version::V2, "unix", "192.0.2.2:443"), v2(0x20, 0x00, &[]));
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
    let v6 = any::<[u8; 16]>().prop_map(IpAddr::from);
    let mapped = any::<[u8; 4]>().prop_map(|octets| std::net::Ipv4Addr::from(octets).to_ipv6_mapped().into());
    (prop_oneof![v4, v6, mapped], any::<u16>()).prop_map(SocketAddr::from)
}

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V1), Just(Version::V2)]
}

/// What the independent implementation reads, if it reads anything: the two addresses and the header's
/// length.
fn oracle(bytes: &[u8]) -> Option<(Option<(SocketAddr, SocketAddr)>, usize)> {
    match ppp::HeaderResult::parse(bytes) {
        ppp::HeaderResult::V1(Ok(header)) => {
            let addresses = match header.addresses {
                ppp::v1::Addresses::Unknown => None,
                ppp::v1::Addresses::Tcp4(pair) => Some((
                    SocketAddr::from((pair.source_address, pair.source_port)),
                    SocketAddr::from((pair.destination_address, pair.destination_port)),
                )),
                ppp::v1::Addresses::Tcp6(pair) => Some((
                    SocketAddr::from((pair.source_address, pair.source_port)),
                    SocketAddr::from((pair.destination_address, pair.destination_port)),
                )),
            };
            Some((addresses, header.header.len()))
        }
        ppp::HeaderResult::V2(Ok(header)) => {
            let addresses = match header.addresses {
                ppp::v2::Addresses::IPv4(pair) => Some((
                    SocketAddr::from((pair.source_address, pair.source_port)),
                    SocketAddr::from((pair.destination_address, pair.destination_port)),
                )),
                ppp::v2::Addresses::IPv6(pair) => Some((
                    SocketAddr::from((pair.source_address, pair.source_port)),
                    SocketAddr::from((pair.destination_address, pair.destination_port)),
                )),
                _ => None,
            };
            let unread = header.command == ppp::v2::Command::Local
                || header.protocol == ppp::v2::Protocol::Unspecified;
            Some((addresses.filter(|_| !unread), header.len()))
        }
        _ => None,
    }
}

/// Lines close to right: each part is mostly valid.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let known = prop_oneof![4 => Just("TCP4"), 4 => Just("TCP6"), 1 => Just("UNKNOWN")];
    let family = prop_oneof![9 => known.prop_map(str::to_owned), 1 => "[A-Z4]{0,5}"];
    let ip =
        prop_oneof![4 => addresses().prop_map(|address| address.ip().to_string()), 1 => "[0-9a-f.:]{0,12}"];
    let port = prop_oneof![4 => any::<u16>().prop_map(|port| port.to_string()), 1 => "[+0-9]{0,6}"];
    let end = prop_oneof![8 => Just("\r\n"), 1 => Just("\n"), 1 => Just(" \r\n"), 1 => Just("\r")];
    (family, ip.clone(), ip, port.clone(), port, end).prop_map(|(family, from, to, port, other, end)| {
        format!("PROXY {family} {from} {to} {port} {other}{end}").into_bytes()
    })
}

/// Binary headers close to right.
fn blocks() -> impl Strategy<Value = Vec<u8>> {
    let command = prop_oneof![8 => Just(0x21u8), 2 => Just(0x20u8), 1 => any::<u8>()];
    let family = prop_oneof![
        4 => Just(0x11u8),
        4 => Just(0x21),
        1 => Just(0x31),
        1 => Just(0),
        1 => any::<u8>(),
    ];
    let block = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 12),
        4 => proptest::collection::vec(any::<u8>(), 36),
        2 => proptest::collection::vec(any::<u8>(), 0..300),
    ];
    (command, family, block).prop_map(|(command, family, block)| v2(command, family, &block))
}

proptest! {
    #[test]
    fn what_is_written_reads_back_as_it_was(
        version in versions(), source in addresses(), destination in addresses(), behind in any::<[u8; 4]>(),
    ) {
        let mut header = Vec::new();
        encode(version, Some(source), Some(destination), &mut header);
        prop_assert!(header.len() <= 107);
        let length = header.len();
        header.extend(behind);
        let (proxied, consumed) = done(&header);
        prop_assert_eq!(consumed, length);
        prop_assert_eq!(proxied.version, version);
        let same = |read: Option<SocketAddr>, meant: SocketAddr| {
            let read = read.unwrap();
            (read.ip().to_canonical(), read.port()) == (meant.ip().to_canonical(), meant.port())
        };
        prop_assert!(same(proxied.source, source) && same(proxied.destination, destination));
        prop_assert_eq!(oracle(&header), Some((proxied.source.zip(proxied.destination), length)));
    }

    #[test]
    fn what_we_accept_the_oracle_reads_the_same_way(header in prop_oneof![lines(), blocks()]) {
        if let Ok(Parsed::Done { value, consumed }) = parse(&header) {
            let addresses = value.source.zip(value.destination);
            match oracle(&header) {
                Some(theirs) => prop_assert_eq!(theirs, (addresses, consumed)),
                // It reads the family of LOCAL, and for UNKNOWN only as many words as the other families
                // have.
                None => prop_assert_eq!(addresses, None),
            }
        }
    }

    #[test]
    fn what_only_the_oracle_accepts_breaks_a_rule_we_add(header in prop_oneof![lines(), blocks()]) {
        if let (Some(_), Err(why)) = (oracle(&header), parse(&header)) {
            let stricter = [
                ProxyError::Port, // a plus sign
                ProxyError::ControlCharacter, // behind UNKNOWN: a line end that is not CRLF
                ProxyError::FieldCut,
                ProxyError::Checksum,
                ProxyError::ChecksumField,
            ];
            prop_assert!(stricter.contains(&why), "{}", why);
        }
    }

    #[test]
    fn an_answer_is_final_and_waiting_is_bounded(
        header in prop_oneof![lines(), blocks()], behind in any::<[u8; 8]>(),
    ) {
        let whole = [&header[..], &behind].concat();
        let last = parse(&whole);
        for cut in 0..whole.len() {
            match parse(&whole[..cut]) {
                Ok(Parsed::Incomplete { at_most }) => {
                    prop_assert!(cut < at_most && at_most <= HEADER_MAX);
                    if let Ok(Parsed::Done { consumed, .. }) = last {
                        prop_assert!(cut < consumed && consumed <= at_most);
                    }
                }
                decided => prop_assert_eq!(&decided, &last),
            }
        }
    }
}
