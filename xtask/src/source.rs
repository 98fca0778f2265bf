//! Rust source, line by line: what is code, what is text in quotes, what is comment, what is only for tests.
//!
//! A lexer and no parser: enough to tell the four apart.

/// A source file.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) lines: Vec<Line>,
}

/// One line, taken apart.
#[derive(Clone, Default, Debug)]
pub(crate) struct Line {
    /// As it stands.
    pub(crate) whole: String,
    /// Without comments; what stands in quotes is gone, the quotes are not.
    pub(crate) code: String,
    /// What stands in quotes.
    pub(crate) quoted: String,
    /// What comments say, their slashes gone.
    pub(crate) comment: String,
    /// Whether it is compiled for tests only.
    pub(crate) test: bool,
}

impl Source {
    pub(crate) fn read(path: &str, text: &str) -> Source {
        let mut lines = Lexer::split(text);
        if is_test_file(path) {
            lines.iter_mut().for_each(|line| line.test = true);
        } else {
            mark_tests(&mut lines);
        }
        Source { path: path.into(), lines }
    }

    /// The lines with their numbers, from 1.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        (1..).zip(&self.lines)
    }

    /// Whether it is nothing but tests.
    pub(crate) fn is_test(&self) -> bool {
        is_test_file(&self.path)
    }
}

fn is_test_file(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "benches"))
}

/// Marks every `#[cfg(test)] mod name { ... }`.
fn mark_tests(lines: &mut [Line]) {
    let mut at = 0;
    while at < lines.len() {
        let opens = lines[at].code.trim() == "#[cfg(test)]"
            && lines.get(at + 1).is_some_and(|next| next.code.trim_start().starts_with("mod "));
        if !opens {
            at += 1;
            continue;
        }
        let end = closing_line(lines, at + 1).unwrap_or(at + 1);
        lines[at..=end].iter_mut().for_each(|line| line.test = true);
        at = end + 1;
    }
}

/// The line in which the first brace at or behind line `from` closes again; `None` where a `;` comes first.
pub(crate) fn closing_line(lines: &[Line], from: usize) -> Option<usize> {
    let (mut braces, mut others) = (0usize, 0usize);
    for (number, line) in lines.iter().enumerate().skip(from) {
        for letter in line.code.chars() {
            match letter {
                '{' => braces += 1,
                '}' if braces == 1 => return Some(number),
                '}' => braces = braces.checked_sub(1)?,
                '(' | '[' => others += 1,
                ')' | ']' => others = others.saturating_sub(1),
                ';' if braces == 0 && others == 0 => return None,
                _ => {}
            }
        }
    }
    None
}

/// Where the lexer stands.
#[derive(Clone, Copy)]
enum Inside {
    Code,
    LineComment,
    /// Block comments nest.
    BlockComment(usize),
    Quotes,
    /// A raw string, closed by a quote and so many hashes.
    RawQuotes(usize),
}

struct Lexer<'t> {
    rest: &'t str,
    inside: Inside,
    line: Line,
    lines: Vec<Line>,
}

impl<'t> Lexer<'t> {
    fn split(text: &'t str) -> Vec<Line> {
        let mut lexer = Lexer { rest: text, inside: Inside::Code, line: Line::default(), lines: Vec::new() };
        while lexer.step() {}
        for (line, whole) in lexer.lines.iter_mut().zip(text.lines()) {
            line.whole = whole.into();
        }
        lexer.lines
    }

    /// Takes one token; whether there was one.
    fn step(&mut self) -> bool {
        let Some(letter) = self.rest.chars().next() else {
            if !self.line.code.is_empty() || !self.line.comment.is_empty() || !self.line.quoted.is_empty() {
                self.lines.push(std::mem::take(&mut self.line));
            }
            return false;
        };
        if letter == '\n' {
            self.rest = &self.rest[1..];
            self.lines.push(std::mem::take(&mut self.line));
            if matches!(self.inside, Inside::LineComment) {
                self.inside = Inside::Code;
            }
            return true;
        }
        match self.inside {
            Inside::Code => self.code(letter),
            Inside::LineComment => self.comment(letter),
            Inside::BlockComment(depth) => self.block_comment(letter, depth),
            Inside::Quotes => self.quotes(letter),
            Inside::RawQuotes(hashes) => self.raw_quotes(letter, hashes),
        }
        true
    }

    fn code(&mut self, letter: char) {
        if self.rest.starts_with("//") {
            self.skip(2);
            self.inside = Inside::LineComment;
        } else if self.rest.starts_with("/*") {
            self.skip(2);
            self.inside = Inside::BlockComment(1);
        } else if letter == '"' {
            self.keep(1);
            self.inside = Inside::Quotes;
        } else if let Some(hashes) = self.raw_opening() {
            self.keep(hashes + 2);
            self.inside = Inside::RawQuotes(hashes);
        } else if letter == '\'' {
            let length = letter_literal(self.rest).unwrap_or(1);
            self.line.code.push('\'');
            self.skip(length);
        } else {
            self.keep(letter.len_utf8());
        }
    }

    /// The number of hashes, if a raw string starts here: `r"`, `r#"`, the `r` not at the end of a name.
    fn raw_opening(&self) -> Option<usize> {
        let behind = self.rest.strip_prefix('r')?;
        let hashes = behind.len() - behind.trim_start_matches('#').len();
        let before = self.line.code.strip_suffix('b').unwrap_or(&self.line.code);
        let name = before.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
        (behind[hashes..].starts_with('"') && !name).then_some(hashes)
    }

    fn comment(&mut self, letter: char) {
        self.line.comment.push(letter);
        self.skip(letter.len_utf8());
    }

    fn block_comment(&mut self, letter: char, depth: usize) {
        if self.rest.starts_with("/*") {
            self.skip(2);
            self.inside = Inside::BlockComment(depth + 1);
        } else if self.rest.starts_with("*/") {
            self.skip(2);
            self.inside = if depth == 1 { Inside::Code } else { Inside::BlockComment(depth - 1) };
        } else {
            self.comment(letter);
        }
    }

    fn quotes(&mut self, letter: char) {
        if letter == '"' {
            self.keep(1);
            self.inside = Inside::Code;
            return;
        }
        let escaped =
            if letter == '\\' { self.rest[1..].chars().next().filter(|next| *next != '\n') } else { None };
        self.quote(letter.len_utf8() + escaped.map_or(0, char::len_utf8));
    }

    fn raw_quotes(&mut self, letter: char, hashes: usize) {
        let closing = format!("\"{}", "#".repeat(hashes));
        if self.rest.starts_with(&closing) {
            self.keep(closing.len());
            self.inside = Inside::Code;
        } else {
            self.quote(letter.len_utf8());
        }
    }

    fn keep(&mut self, length: usize) {
        self.line.code.push_str(&self.rest[..length]);
        self.skip(length);
    }

    fn quote(&mut self, length: usize) {
        self.line.quoted.push_str(&self.rest[..length]);
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        self.rest = &self.rest[length..];
    }
}

/// The length of the letter literal at the start of `text`; `None` for a lifetime.
fn letter_literal(text: &str) -> Option<usize> {
    let behind = text.strip_prefix('\'')?;
    if let Some(escape) = behind.strip_prefix('\\') {
        let first = escape.chars().next()?.len_utf8();
        return escape[first..].find('\'').map(|end| 1 + 1 + first + end + 1);
    }
    let letter = behind.chars().next()?.len_utf8();
    behind[letter..].starts_with('\'').then_some(1 + letter + 1)
}

#[cfg(test)]
mod tests {
    use super::Source;

    fn code(text: &str) -> Vec<String> {
        Source::read("src/x.rs", text).lines.into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn comments_and_quotes_are_not_code() {
        assert_eq!(code("let a = 1; // b\n"), ["let a = 1; "]);
        assert_eq!(code("a /* b /* c */ d */ e"), ["a  e"]);
        assert_eq!(code(r#"say("a // \" b", '"', b'\'', 'x', 'life)"#), [r#"say("", ', b', ', 'life)"#]);
        assert_eq!(
            code("r\"\\\"; r#\"a\"b\"# br\"c\" bar\"d\" r#fn"),
            ["r\"\"; r#\"\"# br\"\" bar\"\" r#fn"]
        );
        assert_eq!(code("\"a\nb { // c\nd\" e"), ["\"", "", "\" e"]);
    }

    #[test]
    fn each_line_keeps_its_comment_and_its_quotes() {
        let source = Source::read("src/x.rs", "f(\"a\", \"b\"); // why\n/// doc\nx");
        assert_eq!((&*source.lines[0].quoted, &*source.lines[0].comment), ("ab", " why"));
        assert_eq!(source.lines[1].comment, "/ doc");
        assert_eq!(source.lines[2].whole, "x");
    }

    #[test]
    fn test_modules_and_test_files_are_known() {
        let module = "#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\n";
        let text = format!("fn a() {{}}\n{module}fn c() {{}}\n#[cfg(test)]\nmod tests;\n");
        let tests: Vec<bool> = Source::read("src/x.rs", &text).lines.iter().map(|line| line.test).collect();
        assert_eq!(tests, [false, true, true, true, true, true, false, true, true]);
        assert!(Source::read("tests/x.rs", "x").lines[0].test);
        assert!(Source::read("src/x/tests.rs", "x").is_test());
    }
}
