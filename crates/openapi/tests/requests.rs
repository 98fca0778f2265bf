//! Requests held against a document.
#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test may")]

use tieline_openapi::{Api, Ask, Options, Refusal};

const ORDERS: &str = include_str!("orders.openapi.yaml");

struct Request<'a> {
    method: &'a str,
    target: &'a str,
    fields: &'a [(&'a str, &'a str)],
    body: &'a str,
}

const TENANT: (&str, &str) = ("X-Tenant", "acme");
const KEY: (&str, &str) = ("idempotency-key", "1f0c2a52-0f0e-4d0a-9b3e-4d9f6f1f2a3b");
const JSON: (&str, &str) = ("Content-Type", "application/json; charset=UTF-8");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const SESSION: (&str, &str) = ("Cookie", "a=b; session=0123456789abcdef; c=d");
const SOUND: &str = r#"{"customer":"Ana","lines":[{"sku":"ABC-1234","quantity":2}]}"#;

fn get<'a>(target: &'a str, fields: &'a [(&'a str, &'a str)]) -> Request<'a> {
    Request { method: "GET", target, fields, body: "" }
}

fn post<'a>(body: &'a str, fields: &'a [(&'a str, &'a str)]) -> Request<'a> {
    Request { method: "POST", target: "/v1/orders", fields, body }
}

/// What the document says to the whole of it.
fn refusal(api: &Api, request: &Request<'_>) -> Option<Refusal> {
    let (path, query) = match request.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.target, None),
    };
    let header = |name: &str, fits: &mut dyn FnMut(&[u8]) -> bool| {
        let of = request.fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        of.into_iter().any(|(_, value)| fits(value.as_bytes()))
    };
    let has_body = !request.body.is_empty();
    let inspected = api.inspect(&Ask { method: request.method, path, query, header: &header, has_body });
    let body = || inspected.body.and_then(|rule| rule.check(request.body.as_bytes()).err());
    inspected.refusal.or_else(|| body().map(Refusal::from))
}

fn orders() -> Api {
    Api::load(ORDERS, &Options::default()).unwrap()
}

/// `422 body /lines/0/sku pattern`: the status, and the first rule that is broken.
fn told(refusal: Option<Refusal>) -> String {
    match refusal {
        None => "fine".into(),
        Some(refusal) => {
            let first = &refusal.violations[0];
            let words = [first.part.as_str(), &first.name, &first.rule];
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            format!("{} {}", refusal.status, words.join(" "))
        }
    }
}

#[track_caller]
fn each(cases: &[(Request<'_>, &str)]) {
    let api = orders();
    for (request, expected) in cases {
        let Request { method, target, body, .. } = request;
        assert_eq!(told(refusal(&api, request)), *expected, "{method} {target} {body}");
    }
}

#[test]
fn paths_and_methods_are_those_of_the_document() {
    let method = |method, target| Request { method, target, fields: &[TENANT], body: "" };
    let api = orders();
    for (request, expected) in [
        (method("GET", "/v1/orders"), "fine"),
        (method("HEAD", "/v1/orders"), "fine"),
        (method("GET", "/v1/orders/"), "404 path paths"),
        (method("GET", "/orders"), "404 path paths"),
        (method("GET", "/v2/orders"), "404 path paths"),
        (method("GET", "/v1/orders/search?q=ab"), "fine"),
        (method("GET", "/v1/orders/%73earch?q=ab"), "fine"),
        (method("GET", "/v1/orders//7"), "404 path paths"),
        (method("PUT", "/v1/orders"), "405 method method"),
        (method("get", "/v1/orders"), "405 method method"),
        (method("OPTIONS", "/v1/orders"), "405 method method"),
        (method("DELETE", "/v1/orders/7"), "fine"),
    ] {
        assert_eq!(told(refusal(&api, &request)), expected, "{} {}", request.method, request.target);
    }
    let refused = refusal(&api, &method("PUT", "/v1/orders")).unwrap();
    assert_eq!(refused.allow.as_deref(), Some("GET, HEAD, POST"));
    let fields = [("Access-Control-Request-Method", "POST")];
    let preflight = Request { method: "OPTIONS", target: "/v1/orders", fields: &fields, body: "" };
    assert_eq!(refusal(&api, &preflight), None);
}

#[test]
fn parameters_are_read_and_checked() {
    each(&[
        (get("/v1/orders?limit=20", &[TENANT]), "fine"),
        (get("/v1/orders?limit=0", &[TENANT]), "400 query limit minimum"),
        (get("/v1/orders?limit=101", &[TENANT]), "400 query limit maximum"),
        (get("/v1/orders?limit=1.5", &[TENANT]), "400 query limit type"),
        (get("/v1/orders?limit=", &[TENANT]), "400 query limit type"),
        (get("/v1/orders?limit=1e1", &[TENANT]), "fine"),
        (get("/v1/orders?limit=010", &[TENANT]), "400 query limit type"),
        (get("/v1/orders?limit=1&limit=2", &[TENANT]), "400 query limit style"),
        (get("/v1/orders?%6cimit=0", &[TENANT]), "400 query limit minimum"),
        (get("/v1/orders?limit=%3", &[TENANT]), "400 query limit style"),
        (get("/v1/orders?%limit=1", &[TENANT]), "400 query style"),
        (get("/v1/orders?status=open&status=paid", &[TENANT]), "fine"),
        (get("/v1/orders?status=open,paid", &[TENANT]), "400 query status/0 enum"),
        (get("/v1/orders?fields=id,total", &[TENANT]), "fine"),
        (get("/v1/orders?fields=id%2Ctotal", &[TENANT]), "400 query fields/0 pattern"),
        (get("/v1/orders?fields=a,b,c,d,e,f", &[TENANT]), "400 query fields maxItems"),
        (get("/v1/orders?created[from]=2026-01-31&created%5Bto%5D=2026-02-01", &[TENANT]), "fine"),
        (get("/v1/orders?created[from]=2026-02-31", &[TENANT]), "400 query created/from format"),
        (get("/v1/orders?created[at]=2026-02-01", &[TENANT]), "400 query created additionalProperties"),
        (get("/v1/orders?sort=%7B%22by%22:%22total%22%7D", &[TENANT]), "fine"),
        (get("/v1/orders?sort=%7B%22by%22:%22size%22%7D", &[TENANT]), "400 query sort/by enum"),
        (get("/v1/orders?sort=total", &[TENANT]), "400 query sort content"),
        (get("/v1/orders?api_key=secret", &[TENANT]), "fine"),
        (get("/v1/orders?debug=1", &[TENANT]), "400 query debug unknown"),
        (get("/v1/orders", &[]), "400 header X-Tenant required"),
        (get("/v1/orders", &[("x-tenant", "Acme")]), "400 header X-Tenant pattern"),
        (get("/v1/orders", &[TENANT, TENANT]), "400 header X-Tenant pattern"),
        (get("/v1/orders/7", &[SESSION]), "fine"),
        (get("/v1/orders/7?verbose", &[SESSION]), "fine"),
        (get("/v1/orders/7?verbose=yes", &[SESSION]), "400 query verbose type"),
        (get("/v1/orders/7", &[]), "400 cookie session required"),
        (get("/v1/orders/7", &[("Cookie", "session=short")]), "400 cookie session minLength"),
        (get("/v1/orders/0", &[SESSION]), "400 path id minimum"),
        (get("/v1/orders/x", &[SESSION]), "400 path id type"),
        (get("/v1/orders/99999999999999999999", &[SESSION]), "400 path id maximum"),
    ]);
}

#[test]
fn bodies_are_read_and_checked() {
    let nested = format!(r#"{{"customer":"a","lines":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let paid =
        r#"{"customer":"A","lines":[{"sku":"ABC-1234","quantity":1}],"payment":{"card":"1","account":"x"}}"#;
    let parts =
        r#"{"customer":"A","lines":[{"sku":"ABC-1234","quantity":1,"parts":[{"sku":"x","quantity":1}]}]}"#;
    let twice = r#"{"customer":"A","lines":[{"sku":"ABC-1234","quantity":1,"quantity":-1}]}"#;
    let head = &[TENANT, KEY, JSON];
    each(&[
        (post(SOUND, head), "fine"),
        (post("", head), "400 body required"),
        (post("{", head), "400 body json"),
        (post(&nested, head), "400 body json"),
        (post(twice, head), "400 body json"),
        (post("[]", head), "422 body type"),
        (post(r#"{"customer":"A","lines":[]}"#, head), "422 body /lines minItems"),
        (post(r#"{"customer":"A"}"#, head), "422 body required"),
        (
            post(r#"{"customer":"A","lines":[{"sku":"ABC-1234","quantity":0}]}"#, head),
            "422 body /lines/0/quantity minimum",
        ),
        (
            post(r#"{"customer":"A","lines":[{"sku":"ABC-1234","quantity":1,"price":0}]}"#, head),
            "422 body /lines/0/price exclusiveMinimum",
        ),
        (
            post(r#"{"customer":"A","lines":[{"sku":"ABC-1234","quantity":1.5}]}"#, head),
            "422 body /lines/0/quantity type",
        ),
        (post(parts, head), "422 body /lines/0/parts/0/sku pattern"),
        (post(paid, head), "422 body /payment oneOf"),
        (post(SOUND, &[TENANT, KEY]), "415 body content"),
        (post(SOUND, &[TENANT, KEY, ("Content-Type", "text/plain")]), "415 body content"),
        (post(SOUND, &[TENANT, KEY, JSON, JSON]), "415 body content"),
        (
            post(SOUND, &[TENANT, KEY, ("Content-Type", "application/json; charset=utf-16")]),
            "415 body encoding",
        ),
        (post(SOUND, &[TENANT, KEY, JSON, ("Content-Encoding", "gzip")]), "415 body encoding"),
        (post(SOUND, &[TENANT, JSON]), "400 header Idempotency-Key required"),
        (post(SOUND, &[TENANT, JSON, ("Idempotency-Key", "7")]), "400 header Idempotency-Key format"),
        (post("customer=Ana&quantity=3&tags=a&tags=b", &[TENANT, KEY, FORM]), "fine"),
        (post("customer=Ana&quantity=0", &[TENANT, KEY, FORM]), "422 body /quantity minimum"),
        (post("customer=Ana&quantity=3&tags=a&tags=a", &[TENANT, KEY, FORM]), "422 body /tags uniqueItems"),
        (post("customer=Ana&customer=Bea&quantity=3", &[TENANT, KEY, FORM]), "400 body form"),
        (post("customer=%&quantity=3", &[TENANT, KEY, FORM]), "400 body form"),
        (post("customer=Ana&quantity=3&admin=1", &[TENANT, KEY, FORM]), "422 body additionalProperties"),
    ]);
    let with_body = |method, target, kind, body| {
        let fields: &[_] = if kind == "image/png" { &[("Content-Type", "image/png")] } else { &[MERGE] };
        told(refusal(&orders(), &Request { method, target, fields, body }))
    };
    const MERGE: (&str, &str) = ("Content-Type", "application/merge-patch+json");
    assert_eq!(with_body("PATCH", "/v1/orders/7", "merge", r#"{"note":null}"#), "fine");
    assert_eq!(with_body("PATCH", "/v1/orders/7", "merge", r#"{"note":5}"#), "422 body /note type");
    assert_eq!(with_body("PATCH", "/v1/orders/7", "merge", "{}"), "422 body minProperties");
    assert_eq!(with_body("DELETE", "/v1/orders/7", "merge", "{}"), "400 body requestBody");
    assert_eq!(with_body("PUT", "/v1/orders/7/attachments/x.png", "image/png", "\u{1}"), "fine");
    assert_eq!(with_body("PUT", "/v1/orders/7/attachments/x.gif", "image/png", "x"), "400 path kind enum");
}

#[test]
fn a_violation_names_the_rule_and_repeats_no_value() {
    let secret = "hunter2-hunter2";
    let body = format!(
        r#"{{"customer":"A","email":"{secret}","lines":[{{"sku":"{secret}","quantity":"{secret}"}}]}}"#
    );
    let refused = refusal(&orders(), &post(&body, &[TENANT, KEY, JSON])).unwrap();
    let at: Vec<&str> = refused.violations.iter().map(|violation| violation.at.as_str()).collect();
    for expected in [
        "/components/schemas/NewOrder/properties/email/format",
        "/components/schemas/Line/properties/sku/pattern",
        "/components/schemas/Line/properties/quantity/type",
    ] {
        assert!(at.contains(&expected), "{expected}: {at:?}");
    }
    assert!(!format!("{refused:?} {refused}").contains(secret), "{refused:?}");
    let query = format!("/v1/orders?limit={secret}&status={secret}");
    let refused = refusal(&orders(), &get(&query, &[TENANT])).unwrap();
    assert!(!format!("{refused:?} {refused}").contains(secret), "{refused:?}");
}

#[test]
fn what_is_told_is_bounded() {
    let many = format!("{{{}}}", (0..5_000).map(|at| format!("\"x{at}\":0")).collect::<Vec<_>>().join(","));
    let refused = refusal(&orders(), &post(&many, &[TENANT, KEY, JSON])).unwrap();
    assert!(format!("{refused:?}").len() < 16 << 10);
    let query = format!("/v1/orders?{}", (0..5_000).map(|at| format!("x{at}")).collect::<Vec<_>>().join("&"));
    let refused = refusal(&orders(), &get(&query, &[TENANT])).unwrap();
    assert!(format!("{refused:?}").len() < 16 << 10);
    let long = format!("/v1/orders?{}=1", "x".repeat(8_000));
    assert!(format!("{:?}", refusal(&orders(), &get(&long, &[TENANT]))).len() < 1_000);
}

#[test]
fn options_move_the_base_and_let_unknown_parameters_pass() {
    let options = Options { base: Some("/shop/api/".into()), unknown_query: true };
    let api = Api::load(ORDERS, &options).unwrap();
    assert_eq!(refusal(&api, &get("/shop/api/orders?debug=1", &[TENANT])), None);
    assert_eq!(told(refusal(&api, &get("/v1/orders", &[TENANT]))), "404 path paths");
    assert_eq!(told(refusal(&api, &get("/shop/apis/orders", &[TENANT]))), "404 path paths");
}

#[test]
fn the_older_dialect_means_what_it_meant() {
    let document = r##"{
        "openapi": "3.0.3",
        "paths": { "/x": { "post": { "requestBody": { "content": { "application/json": { "schema": {
            "type": "object",
            "required": ["id", "age"],
            "properties": {
                "id": { "type": "integer", "readOnly": true },
                "age": { "type": "integer", "minimum": 0, "exclusiveMinimum": true, "nullable": true },
                "picture": { "type": "string", "format": "byte" },
                "small": { "type": "integer", "format": "int32" },
                "other": { "$ref": "#/components/schemas/Name", "maxLength": 1 }
            }
        } } } } } } },
        "components": { "schemas": { "Name": { "type": "string" } } }
    }"##;
    let api = Api::load(document, &Options::default()).unwrap();
    for (body, expected) in [
        (r#"{"age":1}"#, "fine"),
        (r#"{"age":null}"#, "fine"),
        (r#"{"age":0}"#, "422 body /age exclusiveMinimum"),
        (r#"{}"#, "422 body required"),
        (r#"{"age":1,"other":"long"}"#, "fine"),
        (r#"{"age":1,"picture":"aGk="}"#, "fine"),
        (r#"{"age":1,"picture":"a"}"#, "422 body /picture format"),
        (r#"{"age":1,"small":2147483647}"#, "fine"),
        (r#"{"age":1,"small":2147483648}"#, "422 body /small maximum"),
    ] {
        let request = Request { method: "POST", target: "/x", fields: &[JSON], body };
        assert_eq!(told(refusal(&api, &request)), expected, "{body}");
    }
}
