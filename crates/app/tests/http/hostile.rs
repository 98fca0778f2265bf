//! Requests that are meant to be read in one way here and in another way behind us. Most hide a second
//! request, for [`CANARY`], where a careless reader would look for one.

use std::fmt::Write;

/// What no origin may ever be asked for.
pub(crate) const CANARY: &str = "/canary";

/// What has to become of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// No origin hears of it.
    Refused,
    /// It is one request to everybody.
    Forwarded,
    /// Its head is in order and its body is not: an origin may have heard of it, once.
    Broken,
    /// It has no end: nothing comes of it when the client closes.
    Unfinished,
}

/// Bytes for one connection.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// `{}` in `bytes` has become this: a path that no other case has.
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) fate: Fate,
}

/// All cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut table = Table::default();
    two_lengths(&mut table);
    codings(&mut table);
    content_lengths(&mut table);
    names(&mut table);
    line_ends(&mut table);
    folds(&mut table);
    hosts(&mut table);
    request_lines(&mut table);
    targets(&mut table);
    paths(&mut table);
    connections(&mut table);
    sizes(&mut table);
    chunks(&mut table);
    trailers(&mut table);
    other_protocols(&mut table);
    credentials(&mut table);
    harmless(&mut table);
    table.0
}

#[derive(Default)]
struct Table(Vec<Case>);

impl Table {
    /// `bytes` with `{}` for the path of the case.
    fn add(&mut self, fate: Fate, bytes: impl AsRef<[u8]>) {
        let path = format!("/case/{}", self.0.len());
        let mut whole = Vec::new();
        let mut rest = bytes.as_ref();
        while let Some(at) = rest.windows(2).position(|window| window == b"{}") {
            whole.extend_from_slice(&rest[..at]);
            whole.extend_from_slice(path.as_bytes());
            rest = &rest[at + 2..];
        }
        whole.extend_from_slice(rest);
        self.0.push(Case { path, bytes: whole, fate });
    }

    fn refused(&mut self, bytes: impl AsRef<[u8]>) {
        self.add(Fate::Refused, bytes);
    }

    /// A GET with these lines of its head, and the hidden request behind it.
    fn refused_get(&mut self, lines: impl AsRef<[u8]>) {
        let head = [b"GET {} HTTP/1.1\r\nHost: a\r\n", lines.as_ref(), b"\r\n\r\n"].concat();
        self.refused([head, hidden().into_bytes()].concat());
    }
}

/// The second request.
fn hidden() -> String {
    format!("GET {CANARY} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
}

/// A POST with these lines of its head and this body.
fn post(lines: &str, body: &str) -> String {
    format!("POST {{}} HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}")
}

/// An empty chunked body, and the hidden request behind it.
fn chunked_then_hidden() -> String {
    format!("0\r\n\r\n{}", hidden())
}

/// Values of Transfer-Encoding that end in chunks to somebody.
const CODINGS: [&str; 38] = [
    "xchunked",
    "chunkedx",
    "chunked, identity",
    "identity, chunked",
    "identity",
    "chunked, chunked",
    "chunked,",
    ",chunked",
    ", chunked",
    "chunked;",
    "chunked;q=1",
    "chunked; ext=1",
    "gzip, chunked",
    "gzip,chunked",
    "chunked, gzip",
    "gzip",
    "deflate",
    "x-chunked",
    "chun ked",
    "chunk",
    "chunked chunked",
    "\"chunked\"",
    "'chunked'",
    "(chunked)",
    "chunked\u{b}",
    "\u{b}chunked",
    "chunked\u{c}",
    "\u{c}chunked",
    "chunked\0",
    "\0chunked",
    "chunked\u{7f}",
    "\u{a0}chunked",
    "ch\u{fc}nked",
    "chunKed\u{212a}",
    "c\u{1d}hunked",
    "cow",
    "",
    "chunked\r",
];

fn two_lengths(table: &mut Table) {
    let body = chunked_then_hidden();
    let right = ["chunked", "Chunked", "CHUNKED", "\tchunked", "  chunked \t"];
    for coding in right.into_iter().chain(CODINGS) {
        for length in [0, 5, body.len()] {
            let te = format!("Transfer-Encoding: {coding}");
            table.refused(post(&format!("{te}\r\nContent-Length: {length}"), &body));
            table.refused(post(&format!("Content-Length: {length}\r\n{te}"), &body));
        }
    }
}

fn codings(table: &mut Table) {
    let body = chunked_then_hidden();
    for coding in CODINGS {
        table.refused(post(&format!("Transfer-Encoding: {coding}"), &body));
        table.refused(post(&format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: {coding}"), &body));
        table.refused(post(&format!("Transfer-Encoding: {coding}\r\nTransfer-Encoding: chunked"), &body));
    }
    table.refused(post("Transfer-Encoding: chunked\r\ntransfer-encoding: chunked", &body));
    let old = post("Transfer-Encoding: chunked", &body).replace("HTTP/1.1", "HTTP/1.0");
    table.refused(&old);
    table.refused(old.replace("Transfer", "Connection: keep-alive\r\nTransfer"));
}

fn content_lengths(table: &mut Table) {
    let body = hidden();
    let length = body.len();
    let values = [
        format!("+{length}"),
        format!("-{length}"),
        format!("{length},{length}"),
        format!("{length}, {length}"),
        format!("0, {length}"),
        format!("{length}, 0"),
        format!("{length} 0"),
        format!("0 {length}"),
        format!("{length};"),
        format!("{length}.0"),
        format!("{length}e0"),
        format!("0x{length:x}"),
        format!("\"{length}\""),
        format!("'{length}'"),
        format!("{length}\0"),
        format!("\0{length}"),
        format!("{length}\u{b}"),
        format!("\u{b}{length}"),
        format!("{length}\u{c}"),
        format!("{length}_"),
        "0_0".into(),
        String::new(),
        ",".into(),
        "-0".into(),
        "+0".into(),
        "0x0".into(),
        "00x0".into(),
        "1e2".into(),
        "nine".into(),
        "\u{661}".into(),
        "\u{ff10}".into(),
        "18446744073709551616".into(),
        "99999999999999999999999".into(),
        "-1".into(),
        "4294967296x".into(),
        "0\r".into(),
        "NaN".into(),
    ];
    for value in &values {
        table.refused(post(&format!("Content-Length: {value}"), &body));
        table.refused(post(&format!("Content-Length: 0\r\nContent-Length: {value}"), &body));
    }
    for (first, second) in [(0, 0), (0, length), (length, 0), (length, length)] {
        table.refused(post(&format!("Content-Length: {first}\r\nContent-Length: {second}"), &body));
        table.refused(post(&format!("Content-Length: {first}\r\nX: y\r\ncontent-length: {second}"), &body));
    }
}

/// Names that only some would read as those of framing.
fn names(table: &mut Table) {
    for (name, value) in [("Transfer-Encoding", "chunked"), ("Content-Length", "0"), ("Host", "b")] {
        for (before, after) in [
            ("", " "),
            ("", "\t"),
            (" ", ""),
            ("\t", ""),
            ("", "\0"),
            ("\0", ""),
            ("\u{b}", ""),
            ("", "\u{b}"),
            ("", "\u{c}"),
            ("\"", "\""),
            ("(", ")"),
            ("", "\u{a0}"),
            ("\u{feff}", ""),
            ("", "="),
            ("", ";"),
            ("", "\r"),
            ("\r", ""),
            ("", "\u{e9}"),
            ("@", ""),
            ("[", "]"),
            ("", "/"),
            ("", ","),
            ("", "\\"),
        ] {
            table.refused_get(format!("{before}{name}{after}: {value}"));
        }
        table.refused_get(format!(": {value}"));
        table.refused_get(format!("{name} {value}"));
        table.refused_get(name);
        table.refused_get(format!("{name}\r\n: {value}"));
    }
}

fn line_ends(table: &mut Table) {
    let (body, length) = (hidden(), hidden().len());
    for bytes in [
        "GET {} HTTP/1.1\nHost: a\r\n\r\n",
        "GET {} HTTP/1.1\r\nHost: a\n\r\n",
        "GET {} HTTP/1.1\r\nHost: a\r\n\n",
        "GET {} HTTP/1.1\nHost: a\n\n",
        "GET {} HTTP/1.1\rHost: a\r\r",
        "GET {} HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET {} HTTP/1.1\r\r\nHost: a\r\n\r\n",
        "GET {} HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        "GET {} HTTP/1.1\r\nHost: a\r\nX: y\rZ: w\r\n\r\n",
        "GET {} HTTP/1.1\r\nHost: a\r\nX: \ry\r\n\r\n",
        "GET {} HTTP/1.1\r\nHost: a\r\nX: y\nZ: w\r\n\r\n",
        "\nGET {} HTTP/1.1\r\nHost: a\r\n\r\n",
        "\rGET {} HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET {} HTTP/1.1\r\nHost: a\r\n\r\n",
        "\0GET {} HTTP/1.1\r\nHost: a\r\n\r\n",
        " GET {} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET {} HTTP/1.1\r\nHost: a\0\r\n\r\n",
        "GET {} HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET {} HTTP/1.1\r\nHost: a\r\nX: a\u{1}b\r\n\r\n",
        "GET {} HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n",
        "GET {} HTTP/1.1\r\nHost: a\r\n\0\r\n\r\n",
        "GET {} HTTP/1.1\r\nHost: a\r\nX: \u{1b}[2J\r\n\r\n",
        "GET {} HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n",
        "GET {} HTTP/1.1\r\n\rHost: a\r\n\r\n",
    ] {
        table.refused(bytes);
        table.refused(format!("{bytes}{body}"));
    }
    for lines in [
        format!("X: y\nContent-Length: {length}"),
        format!("X: y\rContent-Length: {length}"),
        format!("X: y\n\nContent-Length: {length}"),
        format!("Content-Length: {length}\nX: y"),
        "X: y\nTransfer-Encoding: chunked".into(),
        "X: y\rTransfer-Encoding: chunked".into(),
        "X:\nTransfer-Encoding: chunked".into(),
        "X: y\r\n\rTransfer-Encoding: chunked".into(),
    ] {
        table.refused(post(&lines, &body));
    }
}

/// RFC 9112 §5.2: a line that begins with white space belonged to the one before it, once.
fn folds(table: &mut Table) {
    for fold in ["\r\n ", "\r\n\t", "\r\n  \t ", "\n ", "\r "] {
        for field in
            ["Host: b", "X: y", "Content-Length: 0", "Transfer-Encoding: chunked", "Connection: close"]
        {
            let (name, value) = field.split_once(' ').unwrap();
            table.refused_get(format!("{name}{fold}{value}"));
            table.refused_get(format!("Y: z{fold}{field}"));
        }
        table.refused(format!("GET {{}} HTTP/1.1{fold}Host: a\r\n\r\n{}", hidden()));
    }
}

fn hosts(table: &mut Table) {
    for host in [
        "",
        "a b",
        "a/b",
        "a\\b",
        "a@b",
        "a:b@c",
        "a,b",
        "a;b",
        "a?b",
        "a#b",
        "a%00",
        "a%2fb",
        "a:",
        "a:b",
        "a:-1",
        "a:+1",
        "a:99999",
        "a:065536",
        "a:80:80",
        ":80",
        "[::1",
        "::1",
        "[::1]x",
        "[::g]",
        "[]",
        "a..b",
        ".",
        "..",
        ".a",
        "a\tb",
        "a\"b",
        "<a>",
        "a|b",
        "a^b",
        "{a}",
        "a\u{e9}",
        "\u{ff41}",
        "a\0b",
        "http://a",
        "a\u{b}",
        "*",
        "a&b",
        "a=b",
        "a'b\"",
        "$host",
        "a:0x50",
        "[::1]:",
        "[fe80::1%25eth0]",
    ] {
        table.refused(format!("GET {{}} HTTP/1.1\r\nHost: {host}\r\n\r\n{}", hidden()));
    }
    for hosts in ["Host: a\r\nHost: a", "Host: a\r\nHost: b", "Host: a\r\nhost: ", "X: y"] {
        table.refused(format!("GET {{}} HTTP/1.1\r\n{hosts}\r\n\r\n{}", hidden()));
        table.refused(format!("GET http://a{{}} HTTP/1.1\r\n{hosts}\r\n\r\n{}", hidden()));
    }
}

fn request_lines(table: &mut Table) {
    for line in [
        "GET{} HTTP/1.1",
        "GET  {} HTTP/1.1",
        "GET {}  HTTP/1.1",
        "GET\t{} HTTP/1.1",
        "GET {}\tHTTP/1.1",
        "GET {} HTTP/1.1 ",
        "GET {} HTTP/1.1\t",
        "GET {} HTTP/1.1 x",
        "GET {}",
        "GET {} ",
        "GET",
        "{} HTTP/1.1",
        "GET {} HTTP/1.2",
        "GET {} HTTP/2.0",
        "GET {} HTTP/2",
        "GET {} HTTP/0.9",
        "GET {} HTTP/1.10",
        "GET {} HTTP/01.1",
        "GET {} HTTP/1.",
        "GET {} HTTP/.1",
        "GET {} HTTP/11",
        "GET {} HTTP/1,1",
        "GET {} HTTP1.1",
        "GET {} http/1.1",
        "GET {} Http/1.1",
        "GET {} HTTPS/1.1",
        "GET {} HTTP /1.1",
        "GET {} HTTP/ 1.1",
        "GET {} HTTP/1.1\0",
        "GET {} ICY/1.1",
        "GET {}\0 HTTP/1.1",
        "GET {} /x HTTP/1.1",
        "GET {}\u{b} HTTP/1.1",
        "G\0T {} HTTP/1.1",
        "G(T {} HTTP/1.1",
        "GET: {} HTTP/1.1",
        "G,T {} HTTP/1.1",
        "\"GET\" {} HTTP/1.1",
        "G\u{c9}T {} HTTP/1.1",
        "[GET] {} HTTP/1.1",
    ] {
        table.refused(format!("{line}\r\nHost: a\r\n\r\n{}", hidden()));
    }
}

/// Methods and targets that a proxy could take for its own business.
fn targets(table: &mut Table) {
    for line in [
        "CONNECT {} HTTP/1.1",
        "CONNECT a:80 HTTP/1.1",
        "TRACE {} HTTP/1.1",
        "GET * HTTP/1.1",
        "GET ** HTTP/1.1",
        "POST * HTTP/1.1",
        "GET case HTTP/1.1",
        "GET ?{} HTTP/1.1",
        "GET #{} HTTP/1.1",
        "GET \\{} HTTP/1.1",
        "GET http:{} HTTP/1.1",
        "GET http:/a{} HTTP/1.1",
        "GET ftp://a{} HTTP/1.1",
        "GET file://{} HTTP/1.1",
        "GET ://a{} HTTP/1.1",
        "GET http://{} HTTP/1.1",
        "GET http://u@a{} HTTP/1.1",
        "GET http://u:p@a{} HTTP/1.1",
        "GET http://a:b{} HTTP/1.1",
        "GET http://a\\b{} HTTP/1.1",
        "GET http://a#{} HTTP/1.1",
        "GET http://a,b{} HTTP/1.1",
        "GET http://a:99999{} HTTP/1.1",
        "GET javascript:{} HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET http://a b{} HTTP/1.1",
        "GET http://[::1{} HTTP/1.1",
    ] {
        table.refused(format!("{line}\r\nHost: a\r\n\r\n{}", hidden()));
    }
}

fn paths(table: &mut Table) {
    for path in [
        "/..",
        "/.",
        "/../x",
        "/./x",
        "/x/..",
        "/x/../y",
        "/x/./y",
        "/%2e%2e/x",
        "/%2E%2E/x",
        "/.%2e/x",
        "/%2e./x",
        "/%2e/x",
        "/x/%2e%2e",
        "/..%2fx",
        "/..%2Fx",
        "/x%2fy",
        "/%2f%2fb",
        "/..%5cx",
        "/..\\x",
        "/x\\y",
        "/x%5Cy",
        "/..;/x",
        "/x;y",
        "/x;jsessionid=1",
        "/x%3by",
        "/.;/x",
        "/%00",
        "/x%00.html",
        "/%",
        "/%2",
        "/%zz",
        "/x%",
        "/%u002e",
        "/%%32%65",
        "/x#y",
        "/x y",
        "/x\u{e9}",
        "/\u{7f}",
        "/\u{1}",
        "/x\u{b}y",
        "/x|\u{0}",
        "/..%00/",
        "/x/..?q",
        "/%2e%2e?q",
        "/..%3b/",
        "/.%00./",
    ] {
        table.refused(format!("GET {{}}{path} HTTP/1.1\r\nHost: a\r\n\r\n{}", hidden()));
    }
    for query in ["?a b", "?\u{e9}", "?\0", "?#", "?a#b", "?\u{7f}"] {
        table.refused(format!("GET {{}}{query} HTTP/1.1\r\nHost: a\r\n\r\n{}", hidden()));
    }
}

fn connections(table: &mut Table) {
    for value in [
        "Host",
        "close, Host",
        "Content-Length",
        "content-length, keep-alive",
        "Authorization",
        "Cookie",
        "a b",
        "a\"b",
        "a\0",
        "a/b",
        "\u{e9}",
        "close;x",
        "(close)",
    ] {
        table.refused_get(format!("Connection: {value}"));
    }
    let names: Vec<String> = (0..200).map(|at| format!("x{at}")).collect();
    table.refused_get(format!("Connection: {}", names.join(",")));
    for value in ["100-continue, x", "200-ok", "100-Continue; q=1", "x", "100 continue"] {
        table.refused_get(format!("Expect: {value}"));
    }
}

fn sizes(table: &mut Table) {
    table.refused(format!("GET {{}}{} HTTP/1.1\r\nHost: a\r\n\r\n{}", "x".repeat(9_000), hidden()));
    table.refused(format!("{} {{}} HTTP/1.1\r\nHost: a\r\n\r\n", "G".repeat(9_000)));
    table.refused_get(format!("X: {}", "x".repeat(40_000)));
    table.refused_get(format!("{}: x", "x".repeat(40_000)));
    table.refused_get("X: y\r\n".repeat(101).trim_end());
    table.refused_get("X: y\r\n".repeat(20_000).trim_end());
    table.refused_get(format!("Host: {}", "a".repeat(40_000)));
    let mut many = String::new();
    (0..110).for_each(|at| write!(many, "X-{at}: y\r\n").unwrap());
    table.refused_get(many.trim_end());
}

/// Sizes of a chunk of five bytes, to somebody.
const CHUNK_SIZES: [&str; 35] = [
    "0x5",
    "5 ",
    " 5",
    "5\t",
    "-5",
    "+5",
    "5.",
    "5,",
    "5h",
    "g",
    "",
    "0 ",
    "0_0",
    "00x0",
    "\"5\"",
    "5\0",
    "\u{0}5",
    "FFFFFFFFFFFFFFFF",
    "ffffffff0",
    "100000000",
    "000000005",
    "10000000000000005",
    "5\u{b}",
    "\u{ff15}",
    "5;a=\"",
    "5;a=b c",
    "5;\0",
    "5;a\n",
    "5;=b",
    "5;a==b",
    "5;\r",
    "5\n",
    "5\r",
    "5 ;a=b",
    "5;a=\"\n\"",
];

/// Bodies whose framing breaks; what follows the break hides the second request.
fn chunks(table: &mut Table) {
    for size in CHUNK_SIZES {
        table.add(
            Fate::Broken,
            post("Transfer-Encoding: chunked", &format!("{size}\r\nhello\r\n0\r\n\r\n{}", hidden())),
        );
    }
    table.add(
        Fate::Broken,
        post(
            "Transfer-Encoding: chunked",
            &format!("5;{}\r\nhello\r\n0\r\n\r\n{}", "x".repeat(5000), hidden()),
        ),
    );
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\r\n\r\n",
        "0\r\nX\r\n\r\n",
    ] {
        table.add(Fate::Broken, post("Transfer-Encoding: chunked", &format!("{body}{}", hidden())));
    }
    for body in
        ["", "5", "5\r\n", "5\r\nhel", "5\r\nhello", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "0\r\nX: y\r\n"]
    {
        table.add(Fate::Broken, post("Transfer-Encoding: chunked", body));
    }
}

fn trailers(table: &mut Table) {
    for line in [
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "Host: b",
        "Authorization: x",
        "Cookie: x",
        " X: y",
        "X : y",
        "X: a\0b",
        "X: y\n",
        "X",
        ": y",
        "X: y\rZ: w",
        "Connection: close",
        "X-Forwarded-For: evil",
    ] {
        let body = format!("5\r\nhello\r\n0\r\n{line}\r\n\r\n{}", hidden());
        table.add(Fate::Broken, post("Transfer-Encoding: chunked", &body));
    }
    let body = format!("0\r\n{}\r\n{}", "X: y\r\n".repeat(5_000), hidden());
    table.add(Fate::Broken, post("Transfer-Encoding: chunked", &body));
}

fn other_protocols(table: &mut Table) {
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\x80\x2e\x01\0\x02",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\nGET {} HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x01\x02\x03\x04\0\x01\0\x01",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"*1\r\n$4\r\nPING\r\n",
        b"<policy-file-request/>\0",
        b"EHLO a\r\n\r\n",
    ] {
        table.refused(bytes);
    }
    for bytes in ["G", "GET {}", "GET {} HTTP/1.1\r\n", "GET {} HTTP/1.1\r\nHost: a\r\n", "\r\n", "\r"] {
        table.add(Fate::Unfinished, bytes);
    }
}

/// Two credentials, of which everybody may pick another.
fn credentials(table: &mut Table) {
    for (first, second) in [("Basic YTph", "Basic YjpI"), ("Bearer x", "Bearer x"), ("", "Bearer x")] {
        let fields = format!("Authorization: {first}\r\nX: y\r\nauthorization: {second}");
        table.add(Fate::Refused, format!("GET {{}} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{}", hidden()));
    }
}

/// What looks odd and means one thing to everybody, second requests in bodies included.
fn harmless(table: &mut Table) {
    let (body, length) = (hidden(), hidden().len());
    let h2c = "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__";
    let chunk = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let chunk_by_name = format!("{length:X};name=\"a;b\"\r\n{body}\r\n000\r\n\r\n");
    for (lines, body) in [
        (format!("Content-Length: {length}"), &body),
        (format!("Content-Length: 000{length}"), &body),
        (format!("Content-Length:{length}"), &body),
        (format!("Content-Length: \t{length} \t"), &body),
        (format!("Transfer_Encoding: chunked\r\nContent-Length: {length}"), &body),
        (format!("Content_Length: 0\r\nContent-Length: {length}"), &body),
        (format!("X-Transfer-Encoding: chunked\r\nContent-Length: {length}"), &body),
        (format!("Connection: Transfer-Encoding\r\nContent-Length: {length}"), &body),
        (format!("{h2c}\r\nContent-Length: {length}"), &body),
        (format!("Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: {length}"), &body),
        ("Transfer-Encoding: chunked".into(), &chunk),
        ("TRANSFER-ENCODING:\tChunked ".into(), &chunk_by_name),
        ("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked".into(), &chunk),
    ] {
        table.add(Fate::Forwarded, post(&lines, body));
    }
    for head in [
        "GET {} HTTP/1.1\r\nHost: a",
        "\r\nGET {} HTTP/1.1\r\nHost: a",
        "GET http://b{} HTTP/1.1\r\nHost: a",
        "GET HTTP://b:80{} HTTP/1.1\r\nHost: a",
        "GET {}?x=/../%00;y HTTP/1.1\r\nHost: a",
        "GET {}/%41 HTTP/1.1\r\nHost: a",
        "GET {} HTTP/1.1\r\nHost: [::1]:80",
        "GET {} HTTP/1.1\r\nHost:\ta \t",
        "GET {} HTTP/1.1\r\nHost: a\r\nX: \u{e9}\u{ff}",
        "GET {} HTTP/1.1\r\nHost: a\r\nX:",
        "GET {} HTTP/1.0\r\nHost: a",
        "DELETE {} HTTP/1.1\r\nHost: a",
        "PROPFIND {} HTTP/1.1\r\nHost: a",
        "GET {} HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For, X-Forwarded-Host",
        "GET {} HTTP/1.1\r\nHost: a\r\nContent-Length: 0",
        "GET {}/... HTTP/1.1\r\nHost: a",
        "GET {}/x..y HTTP/1.1\r\nHost: a",
    ] {
        table.add(Fate::Forwarded, format!("{head}\r\n\r\n"));
    }
}
