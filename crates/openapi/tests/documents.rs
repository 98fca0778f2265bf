//! Documents that are wrong, and what is said of them.
#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test may")]

use tieline_openapi::{Api, Options};

fn problems(text: &str) -> Vec<String> {
    let problems = Api::load(text, &Options::default()).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

/// A document whose only operation has the parameter `q` of this schema, in line 10.
fn of_query(schema: &str) -> String {
    let q = "        - name: q\n          in: query\n";
    with(&format!("{ID}    get:\n      parameters:\n{q}          schema: {schema}\n"))
}

/// The parameter that the path asks for.
const ID: &str =
    "    parameters:\n      - { name: id, in: path, required: true, schema: { type: string } }\n";

/// A document of one operation, whose lines begin at line 4.
fn with(lines: &str) -> String {
    format!("openapi: 3.1.0\npaths:\n  /x/{{id}}:\n{lines}")
}

#[test]
fn every_problem_is_told_with_its_place() {
    for (text, expected) in [
        ("", "1:1: the file is empty"),
        ("swagger: '2.0'\n", "1:1: this is Swagger 2.0; convert it to OpenAPI 3 first"),
        ("openapi: 4.0.0\n", "1:1: OpenAPI \"4.0.0\" is not known; write 3.0.x or 3.1.x"),
        ("a: 1\n", "1:1: this is no OpenAPI document: `openapi: 3.1.0` is missing"),
        ("openapi: 3.1.0\n", "1:1: `paths` is missing or empty, so every request would be refused"),
        (&with("    get: {}\n"), "4:5: the path has {id}, and no parameter describes it"),
        (
            &with("    $ref: 'other.yaml#/x'\n"),
            "4:5: `$ref` leads out of the file, to \"other.yaml#/x\"; bundle the document into one file \
             first",
        ),
        (
            &with("    $ref: '#/components/nothing'\n"),
            "4:5: `$ref` names \"#/components/nothing\", and there is nothing there",
        ),
        (&with("    $ref: '#/paths/~1x~1{id}'\n"), "3:3: the references go in a circle"),
        (
            &of_query("{ type: strin }"),
            "10:21: `type` is not what a schema has: it fits none of the alternatives",
        ),
        (
            &of_query("{ pattern: '^(?=x)' }"),
            "10:21: the pattern \"^(?=x)\" is not supported: look-around and back-references take time \
             without bound, or it is no regular expression",
        ),
        (
            &of_query("{ $ref: 'https://example.com/s.json' }"),
            "10:21: `$ref` leads out of the file, to \"https://example.com/s.json\"; bundle the document \
             into one file first",
        ),
        (
            &of_query("{ type: object }"),
            "8:11: the object \"q\" is not supported in this style; write style: deepObject, or content: \
             application/json",
        ),
        (
            &with(&format!("{ID}    get:\n      parameters:\n        - {{ name: q, in: query }}\n")),
            "8:11: a parameter needs a `schema`, or `content` with one",
        ),
        (
            &with(&format!("{ID}    post:\n      requestBody: {{}}\n")),
            "7:7: a body needs `content`: the media types that it may have",
        ),
        (
            &format!("{}  /x/{{other}}:\n    get: {{}}\n", with(&format!("{ID}    get: {{}}\n"))),
            "7:3: another path takes the same requests as \"/x/{other}\"",
        ),
    ] {
        assert!(problems(text).iter().any(|line| line == expected), "{text}\n{:#?}", problems(text));
    }
}

#[test]
fn our_own_document_is_one() {
    let text = include_str!("../../../docs/openapi.json");
    Api::load(text, &Options::default()).unwrap();
}

#[test]
fn schemas_that_refer_to_each_other_in_a_ring_are_compiled_once() {
    let reference = |at: usize| format!("{{ $ref: '#/components/schemas/S{at}' }}");
    let operation = |at: usize| {
        let content = format!("{{ application/json: {{ schema: {} }} }}", reference(at));
        format!("  /r{at}:\n    post:\n      requestBody: {{ content: {content} }}\n")
    };
    let schema = |at: usize| {
        let next = reference((at + 1) % 500);
        format!("    S{at}: {{ type: object, properties: {{ next: {next} }} }}\n")
    };
    let text = format!(
        "openapi: 3.1.0\npaths:\n{}components:\n  schemas:\n{}",
        (0..500).map(operation).collect::<String>(),
        (0..500).map(schema).collect::<String>(),
    );
    // Were each compiled on its own, this would be a quarter of a million schemas.
    Api::load(&text, &Options::default()).unwrap();
}
