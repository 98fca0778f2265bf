//! TLS with the real binary: curl and openssl as clients, nginx as the upstream.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use tieline_testkit::{
    Authority, HttpConversation, Nginx, PATIENCE, Pair, Wanted, finish, free_port, loopback, program,
    wait_until,
};

use crate::origin::Origin;
use crate::secured::{HOST, Secured, all_to, curl, files, get, serial_shown};
use crate::site::{HTTP, Site};
use crate::support::{OneRoute, await_live};

const STATUS: [&str; 4] = ["-o", "/dev/null", "-w", "%{http_code}"];

#[test]
fn each_host_has_its_certificate_and_no_other_is_asked_over_it() {
    let (origin, authority) = (Origin::ok(), Authority::new());
    let pairs = [authority.server(&["a.test"]), authority.server(&["*.b.test", "b.test"])];
    let tls = pairs.map(|pair| format!("{{ {} }}", files(&pair))).join(", ");
    let site = Site::with_routes(&format!("tls = [{tls}]\n{}", all_to(origin.address())));
    for host in ["a.test", "b.test", "x.b.test"] {
        let answer = curl(site.address, &authority, host, &STATUS, "/");
        assert_eq!(answer.expect(host), "200");
    }
    // None of the certificates is for it, and the client says so.
    let foreign = curl(site.address, &authority, "c.test", &STATUS, "/");
    assert!(foreign.stderr.contains("no alternative certificate subject name matches"), "{}", foreign.stderr);
    let crossed = [&["-H", "Host: b.test"][..], &STATUS].concat();
    assert_eq!(curl(site.address, &authority, "a.test", &crossed, "/crossed").expect("curl"), "421");
    assert_eq!(site.reason("/crossed"), "refused:misdirected");
    let answers = (0..4).map(|_| origin.asked().header("x-forwarded-proto").unwrap_or("none").to_owned());
    assert_eq!(answers.take(3).collect::<Vec<_>>(), ["https"; 3]);
    assert!(origin.is_unasked());
}

#[test]
fn changed_files_are_shown_to_new_connections_and_leave_others_alone() {
    let origin = Origin::ok();
    let secured = Secured::start(|_| String::new(), &all_to(origin.address()));
    let address = secured.site.address;
    let mut old = secured.connect(None, &[]);
    old.ask(&get("/"), "HTTP/1.1 200");
    assert_eq!(serial_shown(address, HOST).as_deref(), Some("01"));
    let renewed = Wanted { common_name: HOST, names: &[HOST], serial: 0x77, ..Wanted::default() };
    secured.authority.issue(HOST, renewed);
    assert!(wait_until(PATIENCE, || serial_shown(address, HOST).as_deref() == Some("77")));
    old.ask(&get("/"), "HTTP/1.1 200");
    assert_eq!(secured.curl(&STATUS, "/").expect("curl"), "200");
    drop(old);
}

#[test]
fn a_pair_that_does_not_fit_is_refused_and_the_old_one_stays() {
    let origin = Origin::ok();
    let secured = Secured::start(|_| String::new(), &all_to(origin.address()));
    let tieline = &secured.site.tieline;
    let other = secured.authority.server(&["other.test"]);
    fs::copy(&other.key, secured.authority.path("shop.test.key")).unwrap();
    let wrong = "is not the key of the certificate in";
    assert!(wait_until(PATIENCE, || tieline.log().contains("the old one stays in use")), "{}", tieline.log());
    assert!(tieline.log().contains(wrong), "{}", tieline.log());
    assert_eq!(secured.curl(&STATUS, "/").expect("curl"), "200");
    let refused = tieline.cli(["reload"]);
    assert!(!refused.success() && refused.stderr.contains(wrong), "{refused:?}");
    assert_eq!(secured.curl(&STATUS, "/").expect("curl"), "200");
}

#[test]
fn versions_1_2_and_1_3_are_spoken_and_their_sessions_resumed() {
    let origin = Origin::ok();
    let secured = Secured::start(|_| String::new(), &all_to(origin.address()));
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let file = secured.authority.path("session").display().to_string();
        let mut first = secured.connect(None, &[flag, "-sess_out", &file]);
        first.ask(&get("/"), "HTTP/1.1 200");
        first.await_output(&format!("New, {version}"));
        // The ticket of TLS 1.3 comes behind the handshake, and is written when it has come.
        assert!(wait_until(PATIENCE, || fs::metadata(&file).is_ok_and(|it| it.len() > 0)), "{version}");
        drop(first);
        let mut again = secured.connect(None, &[flag, "-sess_in", &file]);
        again.await_output(&format!("Reused, {version}"));
        again.ask(&get("/"), "HTTP/1.1 200");
    }
    let mut old = secured.connect(None, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(old.await_end().contains("alert"), "{}", old.output());
    assert!(secured.detail_of("protocol-error").contains("TLS handshake"));
}

#[test]
fn who_speaks_no_tls_is_told_nothing_and_the_log_says_why() {
    let origin = Origin::ok();
    let secured = Secured::start(|_| String::new(), &all_to(origin.address()));
    let mut plain = HttpConversation::connect(secured.site.address);
    plain.send(get("/")).unwrap();
    // What comes is an alert at most.
    assert!(plain.rest().unwrap_or_default().len() < 16);
    assert!(secured.detail_of("protocol-error").contains("TLS handshake"));
    assert!(origin.is_unasked());
}

#[test]
fn a_certificate_of_our_own_making_serves_to_try_things_out() {
    let origin = Origin::ok();
    let site = Site::with_routes(&format!("tls = \"self-signed\"\n{}", all_to(origin.address())));
    let url = format!("https://localhost:{}/", site.address.port());
    let curl =
        |arguments: &[&str]| finish(Command::new(program("curl")).args(arguments).args(STATUS).arg(&url));
    assert_eq!(curl(&["-sk"]).expect("curl -k"), "200");
    assert!(!curl(&["-sS"]).success(), "nobody has signed it");
    let mut kept = fs::read_dir(site.tieline.data()).unwrap().map(|entry| entry.unwrap().path());
    let certificate = kept.find(|path| path.extension().is_some_and(|it| it == "crt")).unwrap();
    assert_eq!(curl(&["-sS", "--cacert", certificate.to_str().unwrap()]).expect("curl"), "200");
}

/// nginx behind TLS with the certificate `pair`, answering `ok`.
fn secure_upstream(pair: &Pair, more: &str) -> (Nginx, SocketAddr) {
    let address = loopback(free_port());
    let (certificate, key) = (pair.certificate.display(), pair.key.display());
    let tls =
        format!("ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3; {more}");
    let says = "location / { return 200 \"ok $ssl_protocol $ssl_session_reused $ssl_client_s_dn\"; }";
    let server = format!("server {{ listen {address} ssl; server_name localhost; {tls} {says} }}");
    (Nginx::http(&server, address), address)
}

/// The status and the body of a GET through Tieline to `endpoint`, with this `tls`; and why.
fn through(endpoint: SocketAddr, tls: &str) -> (u16, String, String) {
    let upstream = format!("tls = {tls}\nretry = {{ attempts = 0 }}");
    let named = format!("\"localhost:{}\"", endpoint.port());
    let site = Site::start(&OneRoute { upstream: &upstream, ..HTTP }.to_endpoints(&[named]));
    let answer = site.connect().ask(&get("/"));
    let line = site.log_line("/");
    (answer.status, answer.text(), format!("{} {}", line["reason"], line["detail"]))
}

#[test]
fn an_upstream_must_prove_its_name_by_an_authority_that_is_trusted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = |of: &Authority| format!("{{ ca = \"{}\" }}", of.ca().display());
    let (_nginx, address) = secure_upstream(&authority.server(&["localhost"]), "");
    let (status, body, _) = through(address, &ca(&authority));
    assert_eq!((status, body.starts_with("ok TLSv1.3")), (200, true), "{body}");
    for (tls, wrong) in [
        (ca(&stranger), "UnknownIssuer"),
        // The authorities of this machine do not know it either.
        ("\"verify-full\"".into(), "certificate is refused"),
        (ca(&authority).replace(" }", ", server_name = \"other.test\" }"), "not valid for name"),
    ] {
        let (status, body, why) = through(address, &tls);
        assert_eq!(status, 502, "{tls}: {body}");
        assert!(why.contains("unreachable") && why.contains(wrong), "{tls}: {why}");
        assert!(!body.contains(wrong), "a client is told nothing of it: {body}");
    }
    let (status, ..) = through(address, "\"insecure\"");
    assert_eq!(status, 200);
    let expired =
        Wanted { common_name: "old", names: &["localhost"], serial: 9, expired: true, ..Wanted::default() };
    let (_nginx, address) = secure_upstream(&authority.issue("old", expired), "");
    let (status, _, why) = through(address, &ca(&authority));
    assert!(status == 502 && why.contains("expired"), "{status} {why}");
}

#[test]
fn an_endpoint_that_is_written_as_a_url_is_spoken_to_as_it_says() {
    let authority = Authority::new();
    let (_nginx, address) = secure_upstream(&authority.server(&["localhost"]), "");
    let ask = |endpoint: String, upstream: &str| {
        let site = Site::start(&OneRoute { upstream, ..HTTP }.to_endpoints(&[format!("\"{endpoint}\"")]));
        let answer = site.connect().ask(&get("/"));
        (answer.status, answer.text())
    };
    let ca = format!("tls = {{ ca = \"{}\" }}", authority.ca().display());
    let secure = format!("https://localhost:{}", address.port());
    let (status, body) = ask(secure.clone(), &ca);
    assert_eq!((status, body.starts_with("ok TLSv1.3")), (200, true), "{body}");
    // By itself it means that everything is verified.
    assert_eq!(ask(secure, "retry = { attempts = 0 }").0, 502);
    let origin = Origin::saying("plain");
    assert_eq!(ask(format!("http://{}/", origin.address()), ""), (200, "plain".into()));
}

#[test]
fn an_upstream_may_ask_who_we_are() {
    let authority = Authority::new();
    let asks = format!("ssl_client_certificate {}; ssl_verify_client on;", authority.ca().display());
    let (_nginx, address) = secure_upstream(&authority.server(&["localhost"]), &asks);
    let wanted = Wanted { common_name: "tieline", names: &["tieline.test"], serial: 5, ..Wanted::default() };
    let own = files(&authority.issue("own", wanted));
    let ca = authority.ca().display().to_string();
    let (status, body, _) = through(address, &format!("{{ ca = \"{ca}\", {own} }}"));
    assert_eq!((status, body.trim_end().ends_with("CN=tieline")), (200, true), "{body}");
    let (status, body, _) = through(address, &format!("{{ ca = \"{ca}\" }}"));
    assert_eq!((status, body.contains("No required SSL certificate")), (400, true), "{body}");
}

#[test]
fn a_client_that_never_ends_its_handshake_is_cut_off() {
    let origin = Origin::ok();
    let secured = Secured::start(
        |_| String::new(),
        &format!("timeouts = {{ handshake = \"5s\" }}\n{}", all_to(origin.address())),
    );
    let slow = crate::support::connect(secured.site.address);
    await_live(&secured.site.tieline, "stage=settle", 1);
    crate::support::assert_closed(&slow);
    secured.await_reason("timeout:handshake");
}
