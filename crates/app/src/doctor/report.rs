//! What the doctor says: a line for each check, then a verdict.

use serde::Serialize;

use crate::verbs::text::printable;

/// All that was found, in words.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) server: String,
    /// What a link will go over, the preferred first.
    pub(super) carriers: Vec<&'static str>,
    pub(super) verdict: String,
    pub(super) checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Check {
    pub(super) check: &'static str,
    pub(super) state: State,
    /// What it means, and what to do.
    pub(super) text: String,
    /// How long it took, where that says something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) microseconds: Option<u64>,
}

/// How something stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it should.
    Ok,
    /// It works, and worse than it might.
    Slow,
    /// The network does not let it through.
    Blocked,
    /// Somebody has to mend something.
    Wrong,
    /// There is none, and need not be.
    None,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Slow => "slow",
            State::Blocked => "blocked",
            State::Wrong => "wrong",
            State::None => "-",
        }
    }
}

impl Report {
    /// Whether a link will come up.
    pub(super) fn links(&self) -> bool {
        !self.carriers.is_empty()
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for Check { check, state, text: said, .. } in &self.checks {
            let line = format!("{:<8} {check:<14} {}", state.as_str(), printable(said));
            text += &format!("{}\n", line.trim_end());
        }
        text + &format!("\n{}: {}\n", self.server, self.verdict)
    }

    pub(super) fn json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("texts and numbers can be written");
        text + "\n"
    }
}
