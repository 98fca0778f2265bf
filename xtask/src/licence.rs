//! Licence expressions (SPDX 2.3, Annex D): whether the licences we accept satisfy one.

/// Whether `expression` can be satisfied with licences for which `allowed` holds. A licence with an exception
/// (`Apache-2.0 WITH LLVM-exception`) is asked for as a whole.
pub(crate) fn satisfied(expression: &str, allowed: impl Fn(&str) -> bool) -> bool {
    // Old manifests write "MIT/Apache-2.0" for OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = Words { words: spaced.split_whitespace().collect(), at: 0, allowed: &allowed };
    words.any_of().is_some_and(|satisfied| satisfied && words.at == words.words.len())
}

struct Words<'e, F> {
    words: Vec<&'e str>,
    at: usize,
    allowed: &'e F,
}

impl<F: Fn(&str) -> bool> Words<'_, F> {
    /// `a OR b`: binds less than AND.
    fn any_of(&mut self) -> Option<bool> {
        let mut satisfied = self.all_of()?;
        while self.takes("OR") {
            satisfied |= self.all_of()?;
        }
        Some(satisfied)
    }

    fn all_of(&mut self) -> Option<bool> {
        let mut satisfied = self.one()?;
        while self.takes("AND") {
            satisfied &= self.one()?;
        }
        Some(satisfied)
    }

    fn one(&mut self) -> Option<bool> {
        if self.takes("(") {
            let satisfied = self.any_of()?;
            return self.takes(")").then_some(satisfied);
        }
        let licence = *self.words.get(self.at)?;
        self.at += 1;
        if !self.takes("WITH") {
            return Some((self.allowed)(licence));
        }
        let exception = *self.words.get(self.at)?;
        self.at += 1;
        Some((self.allowed)(&format!("{licence} WITH {exception}")))
    }

    fn takes(&mut self, word: &str) -> bool {
        let there = self.words.get(self.at) == Some(&word);
        self.at += usize::from(there);
        there
    }
}

#[cfg(test)]
mod tests {
    use super::satisfied;

    #[test]
    fn an_expression_is_satisfied_as_spdx_says() {
        let ours =
            |expression: &str| satisfied(expression, |licence| matches!(licence, "MIT" | "ISC" | "A WITH e"));
        for yes in
            ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "MIT AND ISC", "(GPL OR MIT) AND ISC", "A WITH e"]
        {
            assert!(ours(yes), "{yes}");
        }
        for no in [
            "",
            "GPL-3.0",
            "MIT AND GPL",
            "GPL AND MIT OR GPL",
            "A",
            "MIT WITH e",
            "(MIT",
            "MIT MIT",
            "MIT OR",
        ] {
            assert!(!ours(no), "{no}");
        }
    }
}
