//! Which way requests go, and what routes answer themselves.

use std::net::SocketAddr;

use tieline_testkit::{HttpAnswer, HttpConversation};

use crate::origin::Origin;
use crate::site::{Site, request};

/// A public route: `wanted` are its conditions, `target` where it leads.
fn route(name: &str, wanted: &str, target: &str) -> String {
    format!("[[listener.web.route]]\nname = \"{name}\"\naccess = \"public\"\n{wanted}\n{target}\n")
}

/// A route that answers with its own name.
fn named(name: &str, wanted: &str) -> String {
    route(name, wanted, &format!("respond = {{ status = 200, body = \"{name}\" }}"))
}

fn upstream(name: &str, endpoint: SocketAddr) -> String {
    format!("[upstream.{name}]\nendpoints = [\"{endpoint}\"]\n")
}

#[track_caller]
fn ask(client: &mut HttpConversation, method: &str, host: &str, target: &str, fields: &str) -> HttpAnswer {
    client.ask(&format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"))
}

#[test]
fn the_most_exact_route_takes_the_request() {
    let table = [
        named("anywhere", ""),
        named("users", "path = \"/users\""),
        named("one", "path = \"/users/{id}\""),
        named("me", "path = \"/users/me\""),
        named("exact", "path = \"= /users\""),
        named("post", "path = \"/users\"\nmethod = [\"POST\", \"PUT\"]"),
        named("second", "path = \"/users\"\nheaders = { x-version = \"2\" }"),
        named("preview", "path = \"/users\"\nquery = { preview = \"*\" }"),
        named("shop", "host = \"shop.test\""),
        named("wild", "host = \"*.shop.test\""),
        named("blog", "host = [\"blog.shop.test\", \"blog.test\"]"),
    ];
    let site = Site::with_routes(&table.concat());
    let mut client = site.connect();
    for (method, host, target, fields, expected) in [
        ("GET", "other.test", "/", "", "anywhere"),
        ("GET", "other.test", "/usersx", "", "anywhere"),
        ("GET", "other.test", "/users", "", "exact"),
        ("GET", "other.test", "/users/", "", "users"),
        ("GET", "other.test", "/users/7", "", "one"),
        ("GET", "other.test", "/users/7/posts", "", "one"),
        ("GET", "other.test", "/users/me", "", "me"),
        ("GET", "other.test", "/users/%6de", "", "me"),
        ("GET", "other.test", "/users/mex", "", "one"),
        ("PUT", "other.test", "/users/", "", "post"),
        ("DELETE", "other.test", "/users/", "", "users"),
        ("GET", "other.test", "/users/", "X-Version: 2\r\n", "second"),
        ("GET", "other.test", "/users/", "x-version: 3\r\nX-VERSION: 2\r\n", "second"),
        ("GET", "other.test", "/users/", "X-Version: 21\r\n", "users"),
        ("GET", "other.test", "/users/?a=b&preview=", "", "preview"),
        ("GET", "other.test", "/users/?a=preview", "", "users"),
        ("GET", "shop.test", "/users", "", "shop"),
        ("GET", "SHOP.test:8080", "/", "", "shop"),
        ("GET", "www.shop.test", "/", "", "wild"),
        ("GET", "blog.shop.test", "/", "", "blog"),
        ("GET", "blog.test", "/", "", "blog"),
        ("GET", "a.b.shop.test", "/", "", "anywhere"),
        ("GET", "ignored.test", "http://shop.test/", "", "shop"),
    ] {
        let answer = ask(&mut client, method, host, target, fields);
        assert_eq!(answer.text(), expected, "{method} {host} {target} {fields}");
    }
}

#[test]
fn a_request_on_a_live_connection_goes_where_it_says() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let config = [
        route("one", "path = \"/one\"", "upstream = \"one\""),
        route("two", "path = \"/two\"", "upstream = \"two\""),
        upstream("one", one.address()),
        upstream("two", two.address()),
    ];
    let site = Site::with_routes(&config.concat());
    let mut client = site.connect();
    for name in ["one", "two", "one", "two"] {
        assert_eq!(client.ask(&request(&format!("/{name}"), &[])).text(), name);
    }
    assert_eq!((one.accepted(), two.accepted()), (1, 1));
}

#[test]
fn redirects_keep_host_path_and_query() {
    let to = "redirect = { to = \"https://{host}{path}{query}\" }";
    let table = [
        route("all", "", to),
        route("moved", "path = \"/old\"", "redirect = { to = \"/new\", status = 303 }"),
    ];
    let site = Site::with_routes(&table.concat());
    let mut client = site.connect();
    for (target, status, location) in [
        ("/", 308, "https://shop.test/"),
        ("/a%20b/c?d=e&f", 308, "https://shop.test/a%20b/c?d=e&f"),
        ("//evil.test/", 308, "https://shop.test//evil.test/"),
        ("/old/x", 303, "/new"),
    ] {
        let answer = ask(&mut client, "GET", "shop.test:80", target, "");
        assert_eq!((answer.status, answer.header("location")), (status, Some(location)), "{target}");
    }
    let head = ask(&mut client, "HEAD", "shop.test", "/", "");
    assert!(head.status == 308 && head.body.is_empty());
    assert_eq!(
        ask(&mut client, "GET", "shop.test", "/old", "").status,
        303,
        "the answer to HEAD left nothing"
    );
}

#[test]
fn fixed_answers_are_given_as_they_are_written() {
    let table = [
        route("gone", "path = \"/gone\"", "respond = { status = 204 }"),
        route("page", "", "respond = { status = 503, body = \"<p>ü</p>\", type = \"text/html\" }"),
    ];
    let site = Site::with_routes(&table.concat());
    let mut client = site.connect();
    let page = ask(&mut client, "GET", "a", "/", "");
    assert_eq!((page.status, page.text().as_str()), (503, "<p>ü</p>"));
    assert_eq!((page.header("content-type"), page.header("content-length")), (Some("text/html"), Some("9")));
    let gone = ask(&mut client, "GET", "a", "/gone", "");
    assert_eq!((gone.status, gone.header("content-length"), gone.header("content-type")), (204, None, None));
}

#[test]
fn nothing_tells_an_unknown_host_from_one_that_is_not_for_them() {
    let origin = Origin::ok();
    let config = [
        route("shop", "host = \"shop.test\"", "upstream = \"shop\""),
        "[[listener.web.route]]\nhost = \"closed.test\"\nupstream = \"shop\"\n".to_owned(),
        upstream("shop", origin.address()),
    ];
    let site = Site::with_routes(&config.concat());
    let bodies = ["nobody.test", "closed.test"].map(|host| {
        let answer = ask(&mut site.connect(), "GET", host, &format!("/{host}"), "");
        assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/problem+json")));
        let mut body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"), "{body}");
        body["request_id"] = "".into();
        body
    });
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(site.reason("/nobody.test"), "refused:no-route");
    assert_eq!(site.reason("/closed.test"), "refused:policy");
    assert!(origin.is_unasked());
}

#[test]
fn our_own_answers_have_the_form_that_was_asked_for() {
    let site = Site::with_routes(&named("shop", "host = \"shop.test\""));
    let problem = ask(&mut site.connect(), "GET", "nobody.test", "/", "Accept: application/json\r\n");
    let said: serde_json::Value = serde_json::from_slice(&problem.body).unwrap();
    assert_eq!((&said["status"], &said["title"]), (&404.into(), &"Not Found".into()));
    let page = ask(&mut site.connect(), "GET", "nobody.test", "/", "Accept: text/html,*/*;q=0.8\r\n");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let id = page.header("x-request-id").unwrap();
    assert!(page.text().contains("Not Found") && page.text().contains(id), "{}", page.text());
    let head = ask(&mut site.connect(), "HEAD", "nobody.test", "/", "Accept: text/html\r\n");
    assert!(head.status == 404 && head.body.is_empty());
}
