//! What this end offers, said again over each carrier: the one before may have taken it with it.

use super::Link;
use crate::tunnel::frame::{Frame, Offered, Offers};

/// What is to be said of offers.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// As it stands in the frame; `None`: this end is none that offers.
    lines: Option<Vec<u8>>,
    due: bool,
}

impl Telling {
    pub(super) fn is_due(&self) -> bool {
        self.due
    }

    /// The peer may not have heard it.
    pub(super) fn again(&mut self) {
        self.due = self.lines.is_some();
    }

    pub(super) fn say(&mut self) -> Option<Frame<'_>> {
        let due = std::mem::take(&mut self.due);
        self.lines.as_ref().filter(|_| due).map(|lines| Frame::Offers(Offers::written(lines)))
    }
}

impl Link {
    /// Tells the peer all that this end offers, now and over each carrier to come; by rising name.
    pub fn tell_offers<'o>(&mut self, offers: impl IntoIterator<Item = Offered<'o>>) {
        let mut lines = Vec::new();
        Offers::write(offers, &mut lines);
        self.telling = Telling { lines: Some(lines), due: true };
    }
}
