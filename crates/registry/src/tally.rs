//! Counters that a config asks for: one for each rule of it that may come to bear.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter with its labels. Lives as long as the process, so that it survives reloads. It is for what is
/// out of the ordinary: workers share it.
#[derive(Debug)]
pub struct Tally {
    /// What it counts, as metrics call it, without the `_total` behind it.
    pub name: &'static str,
    /// The same, in a sentence.
    pub help: &'static str,
    /// What tells it from others of its name.
    pub labels: Box<[(&'static str, Box<str>)]>,
    count: AtomicU64,
}

impl Tally {
    pub(crate) fn new(name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Self {
        let labels = labels.iter().map(|(label, value)| (*label, Box::from(*value))).collect();
        Self { name, help, labels, count: AtomicU64::new(0) }
    }

    pub(crate) fn is(&self, name: &str, labels: &[(&'static str, &str)]) -> bool {
        let own = self.labels.iter().map(|(label, value)| (*label, &**value));
        self.name == name && own.eq(labels.iter().copied())
    }

    /// Counts one more.
    pub fn add(&self) {
        self.count.fetch_add(1, Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }
}

/// All tallies, those of one name beside each other.
#[derive(Debug, Default)]
pub(crate) struct Tallies(Vec<Arc<Tally>>);

impl Tallies {
    pub(crate) fn find_or_make(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Arc<Tally> {
        if let Some(known) = self.0.iter().find(|tally| tally.is(name, labels)) {
            return known.clone();
        }
        let tally = Arc::new(Tally::new(name, help, labels));
        let behind = self.0.iter().rposition(|other| other.name == name).map_or(self.0.len(), |at| at + 1);
        self.0.insert(behind, tally.clone());
        tally
    }

    pub(crate) fn all(&self) -> Vec<Arc<Tally>> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_the_same_by_its_name_and_labels() {
        let mut tallies = Tallies::default();
        let mut of = |name, route| tallies.find_or_make(name, "Help", &[("route", route)]);
        let (one, _, other) = (of("a", "x"), of("b", "x"), of("a", "y"));
        of("a", "x").add();
        one.add();
        assert_eq!((one.count(), other.count()), (2, 0));
        let names: Vec<_> = tallies.all().iter().map(|tally| tally.name).collect();
        assert_eq!(names, ["a", "a", "b"]);
    }
}
