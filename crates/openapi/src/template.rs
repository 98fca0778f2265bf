//! The paths of a document: `/orders/{id}`, and which of them a request asks for.

use std::collections::HashMap;

use regex::Regex;

use crate::decode;

/// A path as the document writes it.
#[derive(Debug)]
pub(crate) struct Template {
    segments: Vec<Segment>,
    /// The names of its variables, in their order.
    pub(crate) variables: Vec<String>,
}

#[derive(Debug)]
enum Segment {
    Literal(String),
    /// One variable and nothing else.
    Variable,
    /// Text and variables: every group is one.
    Mixed(Box<Regex>),
}

/// What a request's path has where the template has variables, decoded.
pub(crate) type Values = Vec<String>;

impl Template {
    /// Reads `text`, which begins with a slash.
    pub(crate) fn read(text: &str) -> Result<Template, String> {
        let Some(rest) = text.strip_prefix('/') else { return Err("a path begins with a slash".into()) };
        let (mut segments, mut variables) = (Vec::new(), Vec::new());
        for segment in rest.split('/') {
            segments.push(read_segment(segment, &mut variables)?);
        }
        let doubled =
            variables.iter().find(|name| variables.iter().filter(|other| other == name).count() > 1);
        match doubled {
            Some(name) => Err(format!("the path names {{{name}}} twice")),
            None => Ok(Template { segments, variables }),
        }
    }

    /// Literal segments before mixed ones before variables: what is more exact is tried first.
    fn rank(&self) -> Vec<u8> {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 0,
            Segment::Mixed(_) => 1,
            Segment::Variable => 2,
        };
        self.segments.iter().map(rank).collect()
    }

    fn fit(&self, segments: &[String]) -> Option<Values> {
        let mut values = Vec::with_capacity(self.variables.len());
        for (wanted, have) in self.segments.iter().zip(segments) {
            match wanted {
                Segment::Literal(literal) if literal == have => {}
                Segment::Literal(_) => return None,
                Segment::Variable if have.is_empty() => return None,
                Segment::Variable => values.push(have.clone()),
                Segment::Mixed(regex) => {
                    let found = regex.captures(have)?;
                    values.extend(found.iter().skip(1).flatten().map(|value| value.as_str().to_owned()));
                }
            }
        }
        Some(values)
    }
}

fn read_segment(text: &str, variables: &mut Vec<String>) -> Result<Segment, String> {
    let (mut pattern, mut rest, mut literal) = (String::from("^"), text, String::new());
    let before = variables.len();
    let mut adjacent = false;
    while let Some(open) = rest.find('{') {
        let decoded = literal_text(&rest[..open])?;
        if adjacent && decoded.is_empty() {
            return Err("two variables stand side by side, and nothing tells where one ends".into());
        }
        pattern.push_str(&regex::escape(&decoded));
        literal.push_str(&decoded);
        let Some(length) = rest[open..].find('}') else { return Err("a brace is not closed".into()) };
        let name = &rest[open + 1..open + length];
        if name.is_empty() || name.contains('{') {
            return Err("a variable needs a name: {id}".into());
        }
        variables.push(name.to_owned());
        pattern.push_str("(.+?)");
        (rest, adjacent) = (&rest[open + length + 1..], true);
    }
    let decoded = literal_text(rest)?;
    literal.push_str(&decoded);
    if variables.len() == before {
        return Ok(Segment::Literal(literal));
    }
    if literal.is_empty() {
        return Ok(Segment::Variable);
    }
    pattern.push_str(&regex::escape(&decoded));
    pattern.push('$');
    Regex::new(&pattern).map(|regex| Segment::Mixed(Box::new(regex))).map_err(|error| error.to_string())
}

fn literal_text(text: &str) -> Result<String, String> {
    if text.contains(['}', '?', '#']) {
        return Err("the path holds a character that no path has".into());
    }
    decode::percent(text, false)
        .map(|decoded| decoded.into_owned())
        .map_err(|_| "the path is encoded wrongly".into())
}

/// The templates of a document, each with its place in the list.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    /// Those without variables, by their segments.
    literal: HashMap<Vec<String>, usize>,
    /// The others by how many segments they have, the most exact first.
    variable: HashMap<usize, Vec<(Template, usize)>>,
}

impl Paths {
    /// Adds `template`, which stands for `item`; the item that has the same requests already, if one has.
    pub(crate) fn add(&mut self, template: Template, item: usize) -> Option<usize> {
        let literal = |segment: &Segment| match segment {
            Segment::Literal(text) => Some(text.clone()),
            _ => None,
        };
        if let Some(segments) = template.segments.iter().map(literal).collect::<Option<Vec<_>>>() {
            return self.literal.insert(segments, item);
        }
        let list = self.variable.entry(template.segments.len()).or_default();
        let same = list.iter().find(|(other, _)| alike(&other.segments, &template.segments));
        let same = same.map(|(_, item)| *item);
        list.push((template, item));
        list.sort_by_key(|(template, _)| template.rank());
        same
    }

    /// The item that takes the path of these decoded `segments`, and the values of its variables.
    pub(crate) fn find(&self, segments: &[String]) -> Option<(usize, Values)> {
        if let Some(item) = self.literal.get(segments) {
            return Some((*item, Values::new()));
        }
        let list = self.variable.get(&segments.len())?;
        list.iter().find_map(|(template, item)| Some((*item, template.fit(segments)?)))
    }
}

/// Whether the two take the same paths, whatever their variables are called.
fn alike(one: &[Segment], other: &[Segment]) -> bool {
    one.iter().zip(other).all(|pair| match pair {
        (Segment::Literal(one), Segment::Literal(other)) => one == other,
        (Segment::Variable, Segment::Variable) => true,
        (Segment::Mixed(one), Segment::Mixed(other)) => one.as_str() == other.as_str(),
        _ => false,
    })
}

/// The segments of a request's path, decoded one by one, so that an encoded slash divides nothing.
pub(crate) fn segments(path: &str) -> Option<Vec<String>> {
    let decoded = |segment| decode::percent(segment, false).ok().map(|text| text.into_owned());
    path.strip_prefix('/')?.split('/').map(decoded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_path_takes_the_request() {
        let written = ["/", "/a", "/a/{x}", "/a/b", "/{x}/b", "/files/{name}.{kind}", "/files/{all}", "/e/"];
        let mut paths = Paths::default();
        for (item, text) in written.into_iter().enumerate() {
            assert_eq!(paths.add(Template::read(text).unwrap(), item), None, "{text}");
        }
        for (path, expected) in [
            ("/", Some("/")),
            ("/a", Some("/a")),
            ("/a/", None),
            ("/a/b", Some("/a/b")),
            ("/a/c", Some("/a/{x} c")),
            ("/a/c%2Fd", Some("/a/{x} c/d")),
            ("/c/b", Some("/{x}/b c")),
            ("/files/x.png", Some("/files/{name}.{kind} x png")),
            ("/files/x.tar.gz", Some("/files/{name}.{kind} x tar.gz")),
            ("/files/x", Some("/files/{all} x")),
            ("/%61/b", Some("/a/b")),
            ("/e/", Some("/e/")),
            ("/e", None),
            ("/none/of/these", None),
            ("/a/%zz", None),
        ] {
            let found = segments(path).and_then(|segments| paths.find(&segments));
            let told = found.map(|(item, values)| [&[written[item].to_owned()], &*values].concat().join(" "));
            assert_eq!(told.as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn paths_that_take_the_same_are_told_of() {
        let mut paths = Paths::default();
        assert_eq!(paths.add(Template::read("/a/{x}").unwrap(), 0), None);
        assert_eq!(paths.add(Template::read("/a/{y}").unwrap(), 1), Some(0));
        for wrong in ["a", "/{a}{b}", "/{a", "/{}", "/a}", "/{a}/{a}", "/a?b"] {
            assert!(Template::read(wrong).is_err(), "{wrong}");
        }
    }
}
