//! For whom requests speak that come through other proxies, and who believes it.

use tieline_testkit::{HttpConversation, HttpMessage, Nginx, PATIENCE, free_port, loopback, wait_until};

use crate::origin::Origin;
use crate::site::{HTTP, Site, request};
use crate::support::{OneRoute, await_live, connect_from, live};

const TRUSTING: OneRoute<'_> =
    OneRoute { listener: "trusted_forwarders = [\"127.0.0.0/24\", \"10.0.0.0/8\"]", ..HTTP };

/// What the origin gets for a GET with these fields.
#[track_caller]
fn forwarded(origin: &Origin, client: &mut HttpConversation, fields: &[&str]) -> HttpMessage {
    assert_eq!(client.ask(&request("/", fields)).status, 200);
    origin.asked()
}

#[test]
fn who_is_trusted_speaks_for_others_and_nobody_else_does() {
    let origin = Origin::ok();
    let site = Site::start(&TRUSTING.to(&[origin.address()]));
    let said = [
        "X-Forwarded-For: 6.6.6.6, 198.51.100.7, 10.0.0.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: front.test",
        "X-Forwarded-Port: 443",
        "X-Request-Id: from-before-1",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate: vendor=1",
    ];
    let trusted = forwarded(&origin, &mut site.connect(), &said);
    for (name, expected) in [
        ("x-forwarded-for", Some("198.51.100.7, 10.0.0.9, 127.0.0.1")),
        ("x-real-ip", Some("198.51.100.7")),
        ("x-forwarded-proto", Some("https")),
        ("x-forwarded-host", Some("front.test")),
        ("x-forwarded-port", None),
        ("x-request-id", Some("from-before-1")),
        ("forwarded", None),
        ("traceparent", Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
        ("tracestate", Some("vendor=1")),
    ] {
        assert_eq!(trusted.header(name), expected, "{name}: {}", trusted.head);
    }
    // 127.0.1.9 is outside of the networks that are trusted.
    let stranger = connect_from([127, 0, 1, 9], site.address);
    let stranger = forwarded(&origin, &mut HttpConversation::over(stranger), &said);
    for (name, expected) in [
        ("x-forwarded-for", Some("127.0.1.9")),
        ("x-real-ip", Some("127.0.1.9")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("shop.test")),
    ] {
        assert_eq!(stranger.header(name), expected, "{name}: {}", stranger.head);
    }
    assert_ne!(stranger.header("x-request-id"), Some("from-before-1"));
}

#[test]
fn the_client_that_was_found_is_the_one_that_everything_goes_by() {
    let origin = Origin::ok();
    let allow =
        OneRoute { route: "allow = { from = [\"198.51.100.0/24\"] }\naccess = \"policy\"", ..TRUSTING };
    let site = Site::start(&allow.to(&[origin.address()]));
    let mut client = site.connect();
    let of = |ip: &str, id: &str, target: &str| {
        request(target, &[&format!("X-Forwarded-For: {ip}"), &format!("X-Request-Id: {id}")])
    };
    assert_eq!(client.ask(&of("198.51.100.7", "one", "/one")).status, 200);
    let rows = await_live(&site.tieline, "remote=198.51.100.7", 1);
    assert_eq!((&rows[0]["client"], rows[0]["peer"].is_string()), (&"198.51.100.7".into(), true));
    // The next request on the same connection speaks for another.
    assert_eq!(client.ask(&of("198.51.100.8", "two", "/two")).status, 200);
    assert!(live(&site.tieline, "remote=198.51.100.7").is_empty());
    assert_eq!(client.ask(&of("203.0.113.1", "three", "/three")).status, 404);
    for (target, expected, id) in
        [("/one", "198.51.100.7", "one"), ("/two", "198.51.100.8", "two"), ("/three", "203.0.113.1", "three")]
    {
        let line = site.log_line(target);
        assert_eq!((line["client"].as_str(), line["request_id"].as_str()), (Some(expected), Some(id)));
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    }
    // An exchange is told of before it is part of the story.
    let clients = || -> Vec<String> {
        let story = site.tieline.get(&format!("/api/v1/connections/{}", rows[0]["id"]));
        let exchanges = story["exchanges"].as_array().unwrap();
        exchanges.iter().map(|exchange| exchange["client"].as_str().unwrap().to_owned()).collect()
    };
    let expected = ["198.51.100.7", "198.51.100.8", "203.0.113.1"];
    assert!(wait_until(PATIENCE, || clients() == expected), "{:?}", clients());
    // Whoever is trusted speaks for itself where it names nobody: it is not among the allowed.
    assert_eq!(site.connect().ask(&request("/own", &[])).status, 404);
}

#[test]
fn a_request_that_names_two_clients_is_refused() {
    let origin = Origin::ok();
    let site = Site::start(&TRUSTING.to(&[origin.address()]));
    let fields = ["X-Forwarded-For: 198.51.100.7", "Forwarded: for=198.51.100.8"];
    assert_eq!(site.connect().ask(&request("/two", &fields)).status, 400);
    assert_eq!(site.reason("/two"), "protocol-error");
    assert!(origin.is_unasked());
}

#[test]
fn forwarded_tells_the_same_where_it_is_wanted() {
    let origin = Origin::ok();
    let listener = format!("{}\nforwarded = \"forwarded\"", TRUSTING.listener);
    let site = Site::start(&OneRoute { listener: &listener, ..HTTP }.to(&[origin.address()]));
    let mut client = site.connect();
    let plain = forwarded(&origin, &mut client, &[]);
    assert_eq!(plain.header("forwarded"), Some("for=127.0.0.1;host=\"shop.test\";proto=http"));
    assert_eq!((plain.header("x-forwarded-for"), plain.header("x-real-ip")), (None, None));
    let element = "Forwarded: for=\"[2001:db8::7]:9\";host=front.test;proto=https, for=10.0.0.9";
    let chain = forwarded(&origin, &mut client, &[element]);
    let expected = "for=\"[2001:db8::7]\";host=\"front.test\";proto=https, for=10.0.0.9, \
                    for=127.0.0.1;host=\"shop.test\";proto=http";
    assert_eq!(chain.header("forwarded"), Some(expected));
}

#[test]
fn routes_go_by_forwarded_fields_of_trusted_proxies_alone() {
    let config = "trusted_forwarders = [\"127.0.0.1\"]\n\
        [[listener.web.route]]\nname = \"plain\"\naccess = \"public\"\n\
        headers = { x-forwarded-proto = \"http\" }\n\
        redirect = { to = \"https://{host}{path}\" }\n\
        [[listener.web.route]]\nname = \"rest\"\naccess = \"public\"\nrespond = { status = 200 }\n";
    let site = Site::with_routes(config);
    let plain = request("/", &["X-Forwarded-Proto: http"]);
    assert_eq!(site.connect().ask(&plain).status, 308);
    assert_eq!(site.connect().ask(&request("/", &["X-Forwarded-Proto: https"])).status, 200);
    let stranger = connect_from([127, 0, 0, 2], site.address);
    assert_eq!(HttpConversation::over(stranger).ask(&plain).status, 200);
    // A field that ends at this hop decides nothing: who is behind would not see it.
    let hidden = request("/", &["X-Forwarded-Proto: http", "Connection: X-Forwarded-Proto"]);
    assert_eq!(site.connect().ask(&hidden).status, 200);
}

#[test]
fn a_real_nginx_before_us_names_its_client() {
    let origin = Origin::ok();
    let site = Site::start(&TRUSTING.to(&[origin.address()]));
    let front = loopback(free_port());
    let body = format!(
        "server {{ listen {front}; location / {{ proxy_pass http://{};\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         proxy_set_header X-Forwarded-Proto https; proxy_set_header Host $host; }} }}",
        site.address
    );
    let _nginx = Nginx::http(&body, front);
    // What the client claims stands left of what nginx saw.
    let stranger = connect_from([127, 0, 7, 7], front);
    let answer = HttpConversation::over(stranger).ask(&request("/n", &["X-Forwarded-For: 10.1.1.1"]));
    assert_eq!(answer.status, 200);
    let asked = origin.asked();
    assert_eq!(asked.header("x-forwarded-for"), Some("127.0.7.7, 127.0.0.1"));
    assert_eq!(asked.header("x-forwarded-proto"), Some("https"));
    assert!(wait_until(PATIENCE, || site.log_line("/n")["client"] == "127.0.7.7"));
}
