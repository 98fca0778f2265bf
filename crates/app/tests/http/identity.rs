//! Client certificates: who they prove somebody to be, whom routes let in by them, what a revocation ends.

use tieline_testkit::PATIENCE;
use tieline_testkit::{Authority, Pair, Wanted, wait_until};

use crate::origin::Origin;
use crate::secured::{Secured, all_to, get};
use crate::support::{await_live, live, story};

/// `client_ca` of the authority, and what becomes of those without a certificate.
fn asks(client: &str) -> impl FnOnce(&Authority) -> String {
    let client = client.to_owned();
    move |authority| format!(", client_ca = \"{}\", client = \"{client}\"", authority.ca().display())
}

/// [`asks`] with a list of revocations that names nobody yet.
fn asks_and_revokes(authority: &Authority) -> String {
    format!("{}, client_crl = \"{}\"", asks("required")(authority), authority.revoke(&[]).display())
}

/// The route to `origin` for these identities.
fn route_for(origin: &Origin, identity: &str) -> String {
    all_to(origin.address()).replace("access = \"public\"", &format!("allow = {{ identity = [{identity}] }}"))
}

/// A certificate by whose common name somebody goes.
fn person(authority: &Authority, name: &str, serial: u64) -> Pair {
    authority.issue(name, Wanted { common_name: name, serial, ..Wanted::default() })
}

#[test]
fn routes_let_in_whom_they_name_and_upstreams_hear_who_it_is() {
    let origin = Origin::ok();
    let routes = route_for(&origin, "\"ana\", \"group:support\"") + "[group.support]\nmembers = [\"bob\"]\n";
    let secured = Secured::start(asks("optional"), &routes);
    let [ana, bob, eve] = ["ana", "bob", "eve"].map(|name| person(&secured.authority, name, 2));
    for (pair, status) in [(Some(&ana), "200"), (Some(&bob), "200"), (Some(&eve), "404"), (None, "404")] {
        assert_eq!(secured.status(pair), status, "{pair:?}");
    }
    assert_eq!(origin.asked().header("x-tieline-identity"), Some("ana"));
    assert_eq!(origin.asked().header("x-tieline-identity"), Some("bob"));
    assert!(origin.is_unasked());
}

#[test]
fn lists_logs_and_filters_know_who_it_is_and_nobody_can_claim_it() {
    let origin = Origin::ok();
    let secured = Secured::start(asks("optional"), &all_to(origin.address()));
    let tieline = &secured.site.tieline;
    let wanted = Wanted { common_name: "Ana Müller", serial: 0x2a, ..Wanted::default() };
    let mut ana = secured.connect(Some(&secured.authority.issue("ana", wanted)), &[]);
    let forged =
        "GET /ana HTTP/1.1\r\nHost: shop.test\r\nX-Tieline-Identity: root\r\nX-TIELINE-group: root\r\n\r\n";
    ana.ask(forged, "HTTP/1.1 200");
    let asked = origin.asked();
    assert_eq!(asked.all("x-tieline-identity").collect::<Vec<_>>(), ["Ana M%C3%BCller"]);
    assert!(!asked.head.contains("root"), "{}", asked.head);
    let mut nobody = secured.connect(None, &[]);
    nobody.ask(&forged.replace("/ana", "/nobody"), "HTTP/1.1 200");
    assert!(!origin.asked().head.to_ascii_lowercase().contains("x-tieline"));

    assert_eq!(secured.site.log_line("/ana")["identity"], "Ana Müller");
    assert!(secured.site.log_line("/nobody")["identity"].is_null());
    await_live(tieline, "", 2);
    let rows = live(tieline, "identity=Ana%20Müller");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["identity"], "Ana Müller");
    let road = story(tieline, &rows[0]);
    assert!(road.contains("identify: \"Ana Müller\" by certificate 2a (CN=Ana Müller)"), "{road}");
    let listed = tieline.cli(["ls"]).expect("ls");
    assert!(listed.contains("(Ana Müller)"), "{listed}");
    let shown = tieline.cli(["show", &rows[0]["id"].to_string()]).expect("show");
    assert!(shown.contains("identity  Ana Müller"), "{shown}");
    tieline.cli(["kill", "identity=Ana%20Müller"]).expect("kill");
    ana.await_end();
    nobody.ask(&get("/"), "HTTP/1.1 200");
}

#[test]
fn a_certificate_has_one_name() {
    let origin = Origin::ok();
    let secured = Secured::start(asks("required"), &all_to(origin.address()));
    let all = ["email:ana@example.com", "ana.example.com", "URI:spiffe://example.com/ana"];
    let fingerprint = "sha256:";
    for (common_name, names, name) in [
        ("ana", &all[..], "spiffe://example.com/ana"),
        ("ana", &all[..2], "ana.example.com"),
        ("ana", &all[..1], "ana@example.com"),
        ("ana", &["192.0.2.7"], "ana"),
        ("ana", &[], "ana"),
        ("", &[], fingerprint),
    ] {
        let wanted = Wanted { common_name, names, serial: 3, ..Wanted::default() };
        assert_eq!(secured.status(Some(&secured.authority.issue("client", wanted))), "200");
        let heard = origin.asked().header("x-tieline-identity").unwrap().to_owned();
        let fits =
            if name == fingerprint { heard.len() == 71 && heard.starts_with(name) } else { heard == name };
        assert!(fits, "{heard}, not {name}");
    }
}

#[test]
fn who_proves_nothing_is_refused_with_a_reason() {
    let origin = Origin::ok();
    let secured = Secured::start(asks("required"), &all_to(origin.address()));
    let strangers = Authority::new();
    assert!(
        secured.status(Some(&person(&strangers, "ana", 2))).contains("curl: ("),
        "from another authority"
    );
    let (refused, wrong) = ("refused:certificate", "UnknownIssuer");
    assert!(wait_until(PATIENCE, || secured.has_ended(refused)));
    assert!(secured.detail_of(refused).contains(wrong), "{}", secured.detail_of(refused));
    let old = Wanted { common_name: "old", serial: 4, expired: true, ..Wanted::default() };
    let old = secured.authority.issue("old", old);
    for pair in [Some(&old), None] {
        let answer = secured.status(pair);
        assert!(answer.contains("curl: ("), "{pair:?}: {answer}");
    }
    // A control character in a name could make it look like another.
    let odd = Wanted { common_name: "ana\u{8}\u{8}\u{8}bob", serial: 5, ..Wanted::default() };
    assert!(secured.status(Some(&secured.authority.issue("odd", odd))).contains("curl: ("));
    assert_eq!(secured.status(Some(&person(&secured.authority, "ana", 6))), "200");
    // A client of TLS 1.3 is through before it is judged.
    let refused = "tieline_connections_closed_total{listener=\"web\",reason=\"refused:certificate\"}";
    assert!(wait_until(PATIENCE, || secured.site.tieline.metric(refused) == 4.0));
}

#[test]
fn a_revocation_ends_the_connections_of_its_certificate_and_no_others() {
    let origin = Origin::ok();
    let secured = Secured::start(asks_and_revokes, &all_to(origin.address()));
    let (ana, bob) = (person(&secured.authority, "ana", 10), person(&secured.authority, "bob", 11));
    let session = secured.authority.path("session").display().to_string();
    let mut of_ana = secured.connect(Some(&ana), &["-tls1_3", "-sess_out", &session]);
    let mut of_bob = secured.connect(Some(&bob), &[]);
    of_ana.ask(&get("/"), "HTTP/1.1 200");
    of_bob.ask(&get("/"), "HTTP/1.1 200");
    // One that has shown its certificate and asked for nothing yet.
    let mut idle = secured.connect(Some(&ana), &[]);
    await_live(&secured.site.tieline, "identity=ana", 2);

    secured.authority.revoke(&[10]);
    of_ana.await_end();
    idle.await_end();
    let row = secured.await_reason("revoked");
    assert_eq!(row["identity"], "ana");
    let told = story(&secured.site.tieline, &row);
    assert!(told.contains("certificate of \"ana\"") && told.contains("Revoked"), "{told}");
    of_bob.ask(&get("/"), "HTTP/1.1 200");

    // Neither anew nor by what it kept of the session.
    assert!(secured.status(Some(&ana)).contains("curl: ("));
    let mut resumed = secured.connect(Some(&ana), &["-tls1_3", "-sess_in", &session]);
    resumed.send(&get("/"));
    assert!(!resumed.await_end().contains("HTTP/1.1 200"), "{}", resumed.output());
    assert_eq!(secured.status(Some(&bob)), "200");
}

#[test]
fn who_leaves_a_group_leaves_its_routes() {
    let origin = Origin::ok();
    let group = |members: &str| format!("[group.support]\nmembers = [{members}]\n");
    let routes = route_for(&origin, "\"group:support\"");
    let secured = Secured::start(asks("required"), &(routes + &group("\"ana\", \"bob\"")));
    let (ana, bob) = (person(&secured.authority, "ana", 10), person(&secured.authority, "bob", 11));
    let mut of_ana = secured.connect(Some(&ana), &[]);
    let mut of_bob = secured.connect(Some(&bob), &[]);
    of_ana.ask(&get("/"), "HTTP/1.1 200");
    of_bob.ask(&get("/"), "HTTP/1.1 200");
    let before = std::fs::read_to_string(secured.site.tieline.config_file()).unwrap();
    secured.site.tieline.reload(&before.replace("\"ana\", \"bob\"", "\"bob\""));
    of_ana.await_end();
    assert_eq!(secured.await_reason("revoked")["identity"], "ana");
    of_bob.ask(&get("/"), "HTTP/1.1 200");
    assert_eq!(secured.status(Some(&ana)), "404");
}

#[test]
fn files_of_client_certificates_that_are_of_no_use_are_told_in_one_line() {
    let origin = Origin::ok();
    let secured = Secured::start(asks_and_revokes, &all_to(origin.address()));
    let list = secured.authority.path("list.crl");
    std::fs::write(&list, "nothing\n").unwrap();
    let refused = secured.site.tieline.cli(["reload"]);
    let line = format!("listener \"web\": {}: holds no revocation list", list.display());
    assert!(!refused.success() && refused.stderr.contains(&line), "{refused:?}");
    let ana = person(&secured.authority, "ana", 10);
    assert_eq!(secured.status(Some(&ana)), "200", "the list before it stays in use");
}
