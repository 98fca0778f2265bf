//! What routes change of requests and answers.

use tieline_testkit::HttpAnswer;

use crate::origin::Origin;
use crate::site::{Site, request};

/// A route with these lines to an upstream at `origin`.
fn site(origin: &Origin, lines: &str) -> Site {
    let route = format!("[[listener.web.route]]\naccess = \"public\"\nupstream = \"shop\"\n{lines}\n");
    Site::with_routes(&format!("{route}[upstream.shop]\nendpoints = [\"{}\"]\n", origin.address()))
}

#[test]
fn paths_are_made_of_pieces_of_those_that_came() {
    let origin = Origin::ok();
    for (lines, cases) in [
        (
            "path = \"/api\"\nrewrite.strip_prefix = \"/api\"",
            &[("/api", "/"), ("/api/", "/"), ("/api/a%20b?q=/api", "/a%20b?q=/api")][..],
        ),
        (
            "path = \"/api/v1\"\nrewrite.strip_prefix = \"/api\"",
            &[("/api/v1", "/v1"), ("/%61pi/v1/x", "/v1/x")],
        ),
        (
            "path = \"/users/{id}\"\nrewrite.path = \"/people/{id}/{rest}\"",
            &[("/users/7", "/people/7"), ("/users/a%20b/posts/", "/people/a%20b/posts/")],
        ),
        ("rewrite.path = \"/v2/{rest}\"", &[("/", "/v2/"), ("/x?y", "/v2/x?y"), ("//x", "/v2//x")]),
        ("path = \"= /old\"\nrewrite.path = \"/new\"", &[("/old", "/new")]),
    ] {
        let site = site(&origin, lines);
        let mut client = site.connect();
        for (target, expected) in cases {
            assert_eq!(client.ask(&request(target, &[])).status, 200, "{lines}: {target}");
            assert_eq!(origin.asked().target(), *expected, "{lines}: {target}");
        }
    }
}

#[test]
fn no_path_becomes_the_name_of_a_host() {
    let origin = Origin::ok();
    let site = site(&origin, "path = \"/api\"\nrewrite.strip_prefix = \"/api\"");
    assert_eq!(site.connect().ask(&request("/api//evil.test/x", &[])).status, 400);
    assert_eq!(site.reason("/api//evil.test/x"), "protocol-error");
    assert!(origin.is_unasked());
}

#[test]
fn hosts_are_rewritten_and_the_one_that_was_asked_for_is_told() {
    let origin = Origin::ok();
    let site = site(&origin, "rewrite.host = \"shop.internal:8080\"");
    assert_eq!(site.connect().ask(&request("/", &[])).status, 200);
    let asked = origin.asked();
    assert_eq!(asked.all("host").collect::<Vec<_>>(), ["shop.internal:8080"]);
    assert_eq!(asked.header("x-forwarded-host"), Some("shop.test"));
}

#[test]
fn fields_of_requests_and_answers_are_set_added_and_removed() {
    let origin = Origin::start(|_| {
        let fields = "Server: origin\r\nX-Seen: origin\r\nX-Set: origin\r\nX-Set: twice\r\n";
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok").into_bytes()
    });
    let site = site(
        &origin,
        "request_headers = { set = { x-tenant = \"shop\" }, add = { x-seen = \"edge\" }, \
         remove = [\"X-Debug\"] }\n\
         response_headers = { set = { X-Set = \"edge\" }, add = { x-seen = \"edge\" }, \
         remove = [\"server\"] }",
    );
    let mut client = site.connect();
    let fields = ["X-Tenant: evil", "x-tenant: evil", "X-Seen: client", "x-debug: 1", "X-Kept: 1"];
    let answer: HttpAnswer = client.ask(&request("/", &fields));
    let asked = origin.asked();
    let all = |name: &str| asked.all(name).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(all("x-tenant"), ["shop"]);
    assert_eq!(all("x-seen"), ["client", "edge"]);
    assert_eq!(all("x-debug"), [""; 0]);
    assert_eq!(all("x-kept"), ["1"]);
    let lines = |name: &str| {
        let lines = answer.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|it| it.1).collect::<Vec<_>>()
    };
    assert_eq!(lines("x-set"), ["edge"]);
    assert_eq!(lines("x-seen"), ["origin", "edge"]);
    assert_eq!(lines("server"), [""; 0]);
    assert_eq!(client.ask(&request("/again", &[])).text(), "ok", "the connection goes on");
}

#[test]
fn answers_of_the_route_itself_have_its_fields_too() {
    let route = "[[listener.web.route]]\naccess = \"public\"\n\
        response_headers = { set = { strict-transport-security = \"max-age=31536000\" } }\n\
        redirect = { to = \"https://{host}{path}\" }\n";
    let answer = Site::with_routes(route).connect().ask(&request("/", &[]));
    assert_eq!((answer.status, answer.header("strict-transport-security")), (308, Some("max-age=31536000")));
}
