//! What is changed of a request and its answer on the way: the path, the host, fields of both heads.

use tieline_wire::http1::push_field;

/// What is changed of a request and its answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rewrite {
    /// The path; as it came where there is none.
    pub path: Option<PathRewrite>,
    /// The host; as it came where there is none.
    pub host: Option<Box<str>>,
    /// Fields of the request.
    pub request: Edits,
    /// Fields of the answer.
    pub response: Edits,
}

/// A path made of pieces of the one that came. Pieces are whole segments, so that whatever was no dot segment
/// and no slash before is none behind it either.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PathRewrite {
    /// How many segments the route's path, or what is stripped, takes up.
    pub matched: usize,
    /// What it is made of.
    pub parts: Vec<PathPart>,
}

/// One piece of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PathPart {
    /// This segment, as it is spelled in a path.
    Text(Box<str>),
    /// The segment of this number, from 0, as it came.
    Segment(usize),
    /// All that stands behind the matched segments.
    Rest,
}

/// How fields are changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Edits {
    /// These stand there once, whatever came.
    pub set: Vec<(Box<str>, Box<str>)>,
    /// These stand there beside what came.
    pub add: Vec<(Box<str>, Box<str>)>,
    /// These do not stand there.
    pub remove: Vec<Box<str>>,
}

impl Rewrite {
    /// Whether requests go on as they came.
    pub(crate) fn leaves_requests(&self) -> bool {
        self.path.is_none() && self.host.is_none() && self.request.is_empty()
    }
}

impl PathRewrite {
    /// Writes what becomes of `path`. False if that could be read as the name of a host.
    pub(crate) fn write(&self, path: &str, out: &mut Vec<u8>) -> bool {
        let Some(inner) = path.strip_prefix('/') else {
            // `*`: the server as a whole.
            out.extend_from_slice(path.as_bytes());
            return true;
        };
        let start = out.len();
        let (matched, rest) = cut(inner, self.matched);
        for part in &self.parts {
            let piece = match part {
                PathPart::Text(text) => Some(&**text),
                PathPart::Segment(at) => matched.get(*at).copied(),
                PathPart::Rest => rest,
            };
            let Some(piece) = piece else { continue };
            out.push(b'/');
            out.extend_from_slice(piece.as_bytes());
        }
        if out.len() == start {
            out.push(b'/');
        }
        // RFC 3986 §4.2: two slashes in front are followed by a host. Whoever sends such a path gets it
        // forwarded as it is; none is made of another.
        !out[start..].starts_with(b"//") || inner.starts_with('/')
    }
}

/// The first `count` segments, and what stands behind the slash that ends them, if there is one.
fn cut(inner: &str, count: usize) -> (Vec<&str>, Option<&str>) {
    let (mut segments, mut rest) = (Vec::with_capacity(count), Some(inner));
    while let Some(left) = rest.filter(|_| segments.len() < count) {
        let (segment, behind) = left.split_once('/').map_or((left, None), |(one, more)| (one, Some(more)));
        segments.push(segment);
        rest = behind;
    }
    (segments, rest)
}

impl Edits {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Whether a field of this name that came stays.
    pub(crate) fn keeps(&self, name: &str) -> bool {
        let set = self.set.iter().map(|(name, _)| name);
        !set.chain(&self.remove).any(|gone| gone.eq_ignore_ascii_case(name))
    }

    /// Writes the fields that come anew.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in self.set.iter().chain(&self.add) {
            push_field(name, value.as_bytes(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tieline_wire::http1::Path;

    fn text(segment: &str) -> PathPart {
        PathPart::Text(segment.into())
    }

    fn written(rewrite: &PathRewrite, path: &str) -> Option<String> {
        let mut out = Vec::new();
        rewrite.write(path, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_path_is_made_of_pieces_of_the_one_that_came() {
        let strip = PathRewrite { matched: 1, parts: vec![PathPart::Rest] };
        let version = PathRewrite { matched: 1, parts: vec![text("v2"), PathPart::Rest] };
        let person =
            PathRewrite { matched: 2, parts: vec![text("people"), PathPart::Segment(1), PathPart::Rest] };
        let below = PathRewrite { matched: 0, parts: vec![text("app"), PathPart::Rest] };
        for (rewrite, path, expected) in [
            (&strip, "/api", Some("/")),
            (&strip, "/api/", Some("/")),
            (&strip, "/api/a%20b/c", Some("/a%20b/c")),
            (&strip, "/api//evil.test", None),
            (&strip, "//evil.test", Some("/evil.test")),
            (&strip, "*", Some("*")),
            (&version, "/api", Some("/v2")),
            (&version, "/api/", Some("/v2/")),
            (&version, "/api/x", Some("/v2/x")),
            (&version, "/api//x", Some("/v2//x")),
            (&person, "/users/7", Some("/people/7")),
            (&person, "/users/7/posts", Some("/people/7/posts")),
            (&below, "/", Some("/app/")),
            (&below, "/x", Some("/app/x")),
        ] {
            assert_eq!(written(rewrite, path).as_deref(), expected, "{path}");
        }
    }

    proptest! {
        /// A path that everybody reads as one becomes another that everybody reads as one.
        #[test]
        fn a_sound_path_stays_sound(
            path in "(/([a-c.%;]|%2e|%2E|%2f|%5c|%41|[.]){0,4}){1,5}",
            matched in 0usize..4,
            parts in prop::collection::vec(prop_oneof![
                Just(PathPart::Text("v2".into())),
                (0usize..4).prop_map(PathPart::Segment),
                Just(PathPart::Rest),
            ], 0..4),
        ) {
            let rewrite = PathRewrite { matched, parts };
            if Path::checked(&path).is_ok() && let Some(made) = written(&rewrite, &path) {
                prop_assert!(made.starts_with('/'), "{}", made);
                prop_assert!(Path::checked(&made).is_ok(), "{} became {}", path, made);
            }
        }
    }

    #[test]
    fn what_is_set_or_removed_does_not_stay() {
        let edits = Edits {
            set: vec![("X-A".into(), "1".into())],
            add: vec![("X-B".into(), "2".into())],
            remove: vec!["X-C".into()],
        };
        assert!(!edits.keeps("x-a") && edits.keeps("X-B") && !edits.keeps("x-C"));
        let mut out = Vec::new();
        edits.write(&mut out);
        assert_eq!(out, b"X-A: 1\r\nX-B: 2\r\n");
    }
}
