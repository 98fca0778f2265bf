//! Links from one page to a file of ours lead somewhere; a link to a line leads to the line it names.

use std::path::{Path, PathBuf};

use crate::problem::Problem;
use crate::repository::{self, TextFile};

pub(super) fn check(page: &TextFile) -> Vec<Problem> {
    let folder = repository::root().join(&page.path).parent().map(Path::to_path_buf).unwrap_or_default();
    let links =
        prose(&page.text).flat_map(|(at, line)| links_in(line).into_iter().map(move |link| (at, link)));
    let wrong = links.filter_map(|(at, link)| Some((at, wrong_link(&folder, &link)?)));
    wrong.map(|(at, message)| Problem::at(&page.path, at, message)).collect()
}

/// The lines outside code fences, numbered from 1.
pub(super) fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// `[text](target)`.
struct Link<'p> {
    text: &'p str,
    target: &'p str,
}

fn links_in(line: &str) -> Vec<Link<'_>> {
    let middles = line.match_indices("](");
    let link = |(middle, _): (usize, &str)| {
        let start = line[..middle].rfind('[')? + 1;
        let target = &line[middle + 2..];
        let end = target.find(')')?;
        Some(Link { text: &line[start..middle], target: &target[..end] })
    };
    middles.filter_map(link).collect()
}

/// What is wrong with a link from a page in `folder`.
fn wrong_link(folder: &Path, link: &Link<'_>) -> Option<String> {
    let elsewhere = link.target.contains("://") || link.target.starts_with("mailto:");
    let (path, fragment) = link.target.split_once('#').unwrap_or((link.target, ""));
    if elsewhere || path.is_empty() {
        return None;
    }
    let file: PathBuf = folder.join(path);
    if !file.exists() {
        return Some(format!("links to {path}, which does not exist"));
    }
    let lines = line_range(fragment)?;
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    wrong_lines(&text, lines, link)
}

/// `L10` or `L10-L20`.
fn line_range(fragment: &str) -> Option<(usize, usize)> {
    let number = |text: &str| text.strip_prefix('L')?.parse().ok();
    match fragment.split_once('-') {
        Some((first, last)) => Some((number(first)?, number(last)?)),
        None => number(fragment).map(|line| (line, line)),
    }
}

/// The lines must exist, and if the link's text is code, it must stand in one of them: line numbers drift.
fn wrong_lines(text: &str, (first, last): (usize, usize), link: &Link<'_>) -> Option<String> {
    let count = text.lines().count();
    if first == 0 || first > last || last > count {
        return Some(format!("links to {}, but the file has {count} lines", link.target));
    }
    let code = link.text.strip_prefix('`')?.strip_suffix('`')?;
    if text.lines().skip(first - 1).take(last - first + 1).any(|line| line.contains(code)) {
        return None;
    }
    let now = (1..).zip(text.lines()).find(|(_, line)| line.contains(code)).map(|(at, _)| at);
    let now = now.map_or_else(|| "nowhere in the file".to_owned(), |at| format!("in line {at}"));
    Some(format!("links `{code}` to {}, but it stands {now}", link.target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let page = TextFile { path: "xtask/page.md".into(), text: text.into() };
        check(&page).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_link_to_nowhere_is_found() {
        assert_eq!(
            found("see [a](src/main.rs), [b](https://example.com/x), [c](#here) and [d](../Cargo.toml#x)"),
            [""; 0]
        );
        assert_eq!(
            found("\n[a](src/main.rs) [b](src/gone.rs)"),
            ["xtask/page.md:2: links to src/gone.rs, which does not exist"]
        );
        assert_eq!(found("```\n[b](src/gone.rs)\n```\n"), [""; 0]);
    }

    #[test]
    fn a_link_to_a_line_names_what_stands_there() {
        let text = "one\nfn two() {\nthree\n";
        let wrong = |name: &str, range| wrong_lines(text, range, &Link { text: name, target: "x.rs#L" });
        assert_eq!(wrong("words", (3, 3)), None);
        assert_eq!(wrong("`two`", (2, 2)), None);
        assert_eq!(wrong("`two`", (1, 3)), None);
        assert_eq!(wrong("`two`", (1, 1)).unwrap(), "links `two` to x.rs#L, but it stands in line 2");
        assert_eq!(
            wrong("`four`", (1, 1)).unwrap(),
            "links `four` to x.rs#L, but it stands nowhere in the file"
        );
        assert_eq!(wrong("words", (4, 4)).unwrap(), "links to x.rs#L, but the file has 3 lines");
    }

    #[test]
    fn fragments_name_lines_or_headings() {
        assert_eq!(line_range("L10"), Some((10, 10)));
        assert_eq!(line_range("L10-L20"), Some((10, 20)));
        assert_eq!(line_range("limits"), None);
    }
}
