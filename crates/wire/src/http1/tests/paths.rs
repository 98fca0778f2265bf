use super::super::PathError::{self, *};
use super::super::{Path, PathRules, match_form};

#[test]
fn plain_paths_pass() {
    for path in [
        "/",
        "*",
        "/a/b.c",
        "/a//b",
        "/...",
        "/a../b",
        "/..a",
        "/.well-known/x",
        "/%41%C3%A9",
        "/a%20b",
        "/%25",
    ] {
        assert_eq!(Path::checked(path).map(Path::as_str), Ok(path));
    }
}

#[test]
fn paths_that_servers_read_differently_are_refused() {
    let table: &[(&str, PathError)] = &[
        ("/a%2fb", EncodedSlash),
        ("/a%2Fb", EncodedSlash),
        ("/a%5cb", Backslash),
        ("/a%5Cb", Backslash),
        ("/a\\b", Backslash),
        ("/a%00", Nul),
        ("/a\0", Nul),
        ("/a;b", Semicolon),
        ("/a%3bb", Semicolon),
        ("/a%3Bb", Semicolon),
        ("/..;/b", Semicolon),
        ("/.", DotSegment),
        ("/..", DotSegment),
        ("/./a", DotSegment),
        ("/a/../b", DotSegment),
        ("/a/..", DotSegment),
        ("/%2e", DotSegment),
        ("/%2E%2e/a", DotSegment),
        ("/.%2e/a", DotSegment),
        ("/a/%2e./b", DotSegment),
        ("..", DotSegment),
        ("/%", Percent),
        ("/%4", Percent),
        ("/%zz", Percent),
        ("/%4g", Percent),
        ("/%%41", Percent),
        ("/%u0041", Percent),
        ("/a%", Percent),
    ];
    for (path, error) in table {
        assert_eq!(Path::checked(path), Err(*error), "{path}");
    }
}

#[test]
fn each_rule_lets_through_what_it_names() {
    let none = PathRules::default();
    for (path, rules) in [
        ("/a%2Fb", PathRules { encoded_slash: true, ..none }),
        ("/a%5cb", PathRules { backslash: true, ..none }),
        ("/a%00b", PathRules { nul: true, ..none }),
        ("/a;b=c%3b", PathRules { semicolon: true, ..none }),
        ("/a/../%2e", PathRules { dot_segments: true, ..none }),
    ] {
        assert_eq!(Path::checked_by(path, &rules).map(Path::as_str), Ok(path));
        assert!(Path::checked(path).is_err());
    }
    let all =
        PathRules { encoded_slash: true, backslash: true, nul: true, semicolon: true, dot_segments: true };
    assert_eq!(Path::checked_by("/%zz", &all), Err(Percent));
}

#[test]
fn dots_between_other_separators_are_dot_segments_too() {
    let most =
        PathRules { encoded_slash: true, backslash: true, nul: true, semicolon: true, dot_segments: false };
    for path in ["/a%2f..%2fb", "/a\\..\\b", "/a/..;x/b", "/a%5c%2e%2e", "/..%00"] {
        assert_eq!(Path::checked_by(path, &most), Err(DotSegment), "{path}");
    }
}

#[test]
fn matching_decodes_once_and_leaves_the_structure() {
    for (path, form) in [
        ("/a/b", "/a/b"),
        ("/%61%62", "/ab"),
        ("/a%20b", "/a b"),
        ("/%C3%A9", "/\u{e9}"),
        ("/%2541", "/%2541"),
        ("/%25%34%31", "/%2541"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%5cb", "/a%5Cb"),
        ("/a%3bb", "/a%3Bb"),
        ("/%00%0a%7f", "/%00%0A%7F"),
        ("/%ff%c3", "/%FF%C3"),
        ("/%e9a", "/%E9a"),
        ("/%", "/%25"),
        ("/%%341", "/%2541"),
        ("/%zz", "/%25zz"),
    ] {
        assert_eq!(match_form(path), form, "{path}");
        assert_eq!(match_form(form), form, "again: {path}");
    }
}
