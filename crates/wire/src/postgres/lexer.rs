//! The words of a text of SQL that is there as a whole. Where a setting decides how it is read, or it does
//! not end, it is not read at all.

/// One piece of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token<'a> {
    /// A word as it stands there: a keyword, or a name that folds to lower case.
    Word(&'a [u8]),
    /// What stands between double quotes.
    Quoted(&'a [u8]),
    /// A string, a number or a parameter.
    Value,
    /// Any other sign.
    Sign(u8),
}

/// It cannot be said what the text means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unsure;

/// Goes through a text.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

/// What begins and continues a name.
const fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

const fn continues_word(byte: u8) -> bool {
    begins_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The next piece; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Token<'a>>, Unsure> {
        self.skip_blanks()?;
        let Some(&first) = self.text.get(self.at) else { return Ok(None) };
        let from = self.at;
        Ok(Some(match first {
            b'\'' => self.string(false)?,
            b'"' => self.quoted()?,
            b'$' => self.dollar()?,
            b'0'..=b'9' => {
                self.skip_while(|byte| continues_word(byte) || byte == b'.');
                Token::Value
            }
            _ if begins_word(first) => {
                self.skip_while(continues_word);
                self.prefixed(&self.text[from..self.at])?
            }
            _ => {
                self.at += 1;
                Token::Sign(first)
            }
        }))
    }

    /// What the next piece will be.
    pub(super) fn peek(&self) -> Result<Option<Token<'a>>, Unsure> {
        self.clone().next()
    }

    fn skip_while(&mut self, is_part: impl Fn(u8) -> bool) {
        self.at += self.text[self.at..].iter().take_while(|byte| is_part(**byte)).count();
    }

    fn skip_blanks(&mut self) -> Result<(), Unsure> {
        loop {
            self.skip_while(|byte| byte.is_ascii_whitespace() || byte == 0x0b);
            match self.text[self.at..] {
                [b'-', b'-', ..] => self.skip_while(|byte| byte != b'\n' && byte != b'\r'),
                [b'/', b'*', ..] => self.comment()?,
                _ => return Ok(()),
            }
        }
    }

    /// PostgreSQL documentation, "Comments": they nest.
    fn comment(&mut self) -> Result<(), Unsure> {
        let mut depth = 0u32;
        loop {
            match self.text[self.at..] {
                [b'/', b'*', ..] => (self.at, depth) = (self.at + 2, depth + 1),
                [b'*', b'/', ..] => (self.at, depth) = (self.at + 2, depth - 1),
                [_, ..] => self.at += 1,
                [] => return Err(Unsure),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// A word, unless it says how the string that follows is written.
    fn prefixed(&mut self, word: &'a [u8]) -> Result<Token<'a>, Unsure> {
        let rest = &self.text[self.at..];
        match (word, rest) {
            (b"e" | b"E", [b'\'', ..]) => self.string(true),
            (b"b" | b"B" | b"x" | b"X" | b"n" | b"N", [b'\'', ..]) => self.string(false),
            // What is spelled with escapes is not read.
            (b"u" | b"U", [b'&', b'\'' | b'"', ..]) => Err(Unsure),
            _ => Ok(Token::Word(word)),
        }
    }

    fn string(&mut self, escapes: bool) -> Result<Token<'a>, Unsure> {
        self.at += 1;
        loop {
            match self.text[self.at..] {
                [b'\'', b'\'', ..] => self.at += 2,
                [b'\'', ..] => {
                    self.at += 1;
                    return Ok(Token::Value);
                }
                [b'\\', _, ..] if escapes => self.at += 2,
                // `standard_conforming_strings` says what it means.
                [b'\\', ..] => return Err(Unsure),
                [_, ..] => self.at += 1,
                [] => return Err(Unsure),
            }
        }
    }

    fn quoted(&mut self) -> Result<Token<'a>, Unsure> {
        let from = self.at + 1;
        let length = memchr::memchr(b'"', &self.text[from..]).ok_or(Unsure)?;
        self.at = from + length + 1;
        match self.text.get(self.at) {
            // A quote within a name: nobody calls anything so.
            Some(b'"') => Err(Unsure),
            _ => Ok(Token::Quoted(&self.text[from..from + length])),
        }
    }

    /// A parameter, or a string between dollars.
    fn dollar(&mut self) -> Result<Token<'a>, Unsure> {
        let from = self.at;
        self.at += 1;
        if self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.skip_while(|byte| byte.is_ascii_digit());
            return Ok(Token::Value);
        }
        self.skip_while(|byte| begins_word(byte) || byte.is_ascii_digit());
        if self.text.get(self.at) != Some(&b'$') {
            return Err(Unsure);
        }
        let tag = &self.text[from..=self.at];
        let behind = self.at + 1;
        let length = memchr::memmem::find(&self.text[behind..], tag).ok_or(Unsure)?;
        self.at = behind + length + tag.len();
        Ok(Token::Value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(text: &str) -> Result<Vec<Token<'_>>, Unsure> {
        let (mut lexer, mut all) = (Lexer::new(text.as_bytes()), Vec::new());
        while let Some(token) = lexer.next()? {
            all.push(token);
        }
        Ok(all)
    }

    #[test]
    fn a_text_falls_into_its_words() {
        use Token::*;
        assert_eq!(
            tokens("Select a.\"B\" /* x /* y */ z */, $1 -- end\n + 'it''s'").unwrap(),
            [Word(b"Select"), Word(b"a"), Sign(b'.'), Quoted(b"B"), Sign(b','), Value, Sign(b'+'), Value]
        );
        assert_eq!(tokens("E'\\'' $$;'$$ $a$ $b$ $a$ 1.5e3 x'ff';").unwrap().len(), 6);
        assert_eq!(tokens("").unwrap(), []);
    }

    #[test]
    fn what_a_setting_decides_and_what_does_not_end_is_not_read() {
        for text in ["'a\\'", "'a", "\"a", "/* a", "$a$ $b$", "U&'a'", "u&\"a\"", "\"a\"\"b\"", "$a b"] {
            assert_eq!(tokens(text), Err(Unsure), "{text}");
        }
    }

    proptest! {
        /// Whatever comes, it ends.
        #[test]
        fn every_text_ends(text in "[ -~é\\n]{0,60}") {
            let _ = tokens(&text);
        }
    }
}
