//! What an agent says that it offers: kept with its link, by the server.

use std::fmt;
use std::sync::Arc;

use tieline_wire::tunnel::{OfferKind, Offers};

/// The services of an agent, by name; at most [`OFFERS_MAX`](tieline_wire::tunnel::OFFERS_MAX).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Offered(Vec<(Box<str>, OfferKind)>);

impl Offered {
    /// What the frame says, which has them by rising name.
    pub(crate) fn of(offers: &Offers<'_>) -> Offered {
        Offered(offers.iter().map(|offer| (offer.name.into(), offer.kind)).collect())
    }

    /// Whether `service` is among them.
    pub fn has(&self, service: &str) -> bool {
        self.0.binary_search_by(|(name, _)| (**name).cmp(service)).is_ok()
    }

    /// Every name and kind, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, OfferKind)> {
        self.0.iter().map(|(name, kind)| (&**name, *kind))
    }
}

/// What is known at one end of a link of what the other offers.
#[derive(Default)]
pub(crate) struct Heard {
    offers: Option<Arc<Offered>>,
    news: bool,
}

impl Heard {
    /// The other end says what it offers now. One that says the same again has only changed its carrier.
    pub(crate) fn take(&mut self, offers: Offered) {
        if self.offers.as_deref() != Some(&offers) {
            self.offers = Some(Arc::new(offers));
            self.news = true;
        }
    }

    /// What it offers; `None` until it has said so.
    pub(crate) fn offers(&self) -> Option<&Arc<Offered>> {
        self.offers.as_ref()
    }

    /// Whether it offers other things than before; told once.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }
}

/// So many are named where people read them.
const NAMED_MAX: usize = 8;

impl fmt::Display for Offered {
    /// `db, ssh and 3 more`; `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        let names: Vec<&str> = self.iter().take(NAMED_MAX).map(|(name, _)| name).collect();
        f.write_str(&names.join(", "))?;
        match self.0.len() - names.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tieline_wire::tunnel::{OFFERS_MAX, Offered as Line};

    fn offered(names: &[String]) -> Offered {
        let mut lines = Vec::new();
        let line = |name| Line { name, kind: OfferKind::Tcp };
        Offered::of(&Offers::write(names.iter().map(|name| line(name.as_str())), &mut lines))
    }

    #[test]
    fn services_are_found_by_name_and_a_long_list_is_told_short() {
        let none = offered(&[]);
        assert!(!none.has("ssh") && none.to_string() == "nothing");
        let two = offered(&["db".into(), "ssh".into()]);
        assert!(two.has("db") && two.has("ssh") && !two.has("d") && !two.has("ssh2"));
        assert_eq!(two.to_string(), "db, ssh");
        let names: Vec<String> = (0..OFFERS_MAX).map(|at| format!("s{at:03}")).collect();
        let many = offered(&names);
        assert!(many.has("s255"));
        assert!(many.to_string().ends_with("s007 and 248 more"), "{many}");
    }
}
