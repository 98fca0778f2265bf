//! Links from one page to a file of ours lead somewhere; a link to a line leads to the line it names.

use std::path::{Path, PathBuf};

use crate::problem::Problem;
use crate::repository::{self, TextFile};

pub(super) fn check(page: &TextFile) -> Vec<Problem> {
    let folder = folder_of(page);
    let links =
        prose(&page.text).flat_map(|(at, line)| links_in(line).into_iter().map(move |link| (at, link)));
    let wrong = links.filter_map(|(at, link)| Some((at, wrong_link(&folder, &link)?)));
    wrong.map(|(at, message)| Problem::at(&page.path, at, message)).collect()
}

/// The page with each link to a line of code led to where the name it bears is defined by now.
pub(crate) fn renewed(page: &TextFile) -> String {
    let folder = folder_of(page);
    let mut text = page.text.clone();
    for (_, line) in prose(&page.text) {
        for link in links_in(line) {
            if let Some(target) = renewed_target(&folder, &link) {
                let old = format!("[{}]({})", link.text, link.target);
                text = text.replace(&old, &format!("[{}]({target})", link.text));
            }
        }
    }
    text
}

/// Where `link`, which no longer leads to its line, should lead.
fn renewed_target(folder: &Path, link: &Link<'_>) -> Option<String> {
    wrong_link(folder, link)?;
    let (path, fragment) = link.target.split_once('#')?;
    let (near, last) = line_range(fragment)?;
    let text = std::fs::read_to_string(folder.join(path)).ok()?;
    let at = home(&text, code(link)?, near)?;
    let range = if near == last { format!("L{at}") } else { format!("L{at}-L{}", at + last - near) };
    Some(format!("{path}#{range}"))
}

fn folder_of(page: &TextFile) -> PathBuf {
    repository::root().join(&page.path).parent().map(Path::to_path_buf).unwrap_or_default()
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
    let code = code(link)?;
    if text.lines().skip(first - 1).take(last - first + 1).any(|line| line.contains(code)) {
        return None;
    }
    let now = home(text, code, first)
        .map_or_else(|| "nowhere in the file".to_owned(), |at| format!("in line {at}"));
    Some(format!("links `{code}` to {}, but it stands {now}", link.target))
}

/// The code that a link's text is, if it is.
fn code<'p>(link: &Link<'p>) -> Option<&'p str> {
    link.text.strip_prefix('`')?.strip_suffix('`')
}

/// The line that defines `code`, else one that has it: the nearest to `near`.
fn home(text: &str, code: &str, near: usize) -> Option<usize> {
    let defines = |line: &str| {
        let words = ["fn", "struct", "enum", "trait", "type", "const", "static", "mod"];
        words.iter().any(|word| {
            let rest = line.split_once(&format!("{word} {code}")).map(|(_, rest)| rest);
            rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
        })
    };
    let having = (1_usize..).zip(text.lines()).filter(|(_, line)| line.contains(code));
    having.min_by_key(|(at, line)| (!defines(line), at.abs_diff(near))).map(|(at, _)| at)
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
    fn a_name_is_sought_where_it_is_defined() {
        let text = "open();\nfn opening() {}\npub(crate) fn open<T>() {}\nopen();\nclose();\nclose();\n";
        assert_eq!(home(text, "open", 1), Some(3));
        assert_eq!(home(text, "close", 9), Some(6));
        assert_eq!(home(text, "gone", 1), None);
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
