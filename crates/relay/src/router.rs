//! Which route a connection takes: pure, and the same answer for the same ask.

use std::collections::HashMap;
use std::sync::Arc;

use tieline_conn::Route;

/// The routes of one listener.
#[derive(Debug)]
pub struct Router<R = Arc<Route>> {
    exact: HashMap<Box<str>, R>,
    /// By what stands behind the `*`, dot included.
    wildcard: HashMap<Box<str>, R>,
    rest: Option<R>,
}

impl<R> Default for Router<R> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), rest: None }
    }
}

impl<R: Clone> Router<R> {
    /// A router without routes, which finds none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route for the server names `names` (`*.` in front covers one label more); for everything else
    /// if there are none.
    pub fn add<'n>(&mut self, names: impl IntoIterator<Item = &'n str>, route: R) {
        let mut named = false;
        for name in names {
            named = true;
            match name.strip_prefix('*') {
                Some(suffix) => self.wildcard.insert(suffix.into(), route.clone()),
                None => self.exact.insert(name.into(), route.clone()),
            };
        }
        if !named {
            self.rest = Some(route);
        }
    }

    /// Whether it needs the TLS hello's server name to decide.
    pub fn asks_server_name(&self) -> bool {
        !self.exact.is_empty() || !self.wildcard.is_empty()
    }

    /// The route for `server_name`, in lower case: the exact name first, then the wildcard that covers it,
    /// then the route without names.
    pub fn find(&self, server_name: Option<&str>) -> Option<&R> {
        let Some(name) = server_name else { return self.rest.as_ref() };
        let covered = || name.find('.').and_then(|dot| self.wildcard.get(&name[dot..]));
        self.exact.get(name).or_else(covered).or(self.rest.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::Router;
    use proptest::prelude::*;

    fn find(router: &Router<usize>, name: Option<&str>) -> Option<usize> {
        router.find(name).copied()
    }

    #[test]
    fn the_closest_name_wins() {
        let mut router = Router::new();
        router.add(["db.example.com"], 1);
        router.add(["*.example.com"], 2);
        router.add([], 3);
        for (name, route) in [
            (Some("db.example.com"), 1),
            (Some("web.example.com"), 2),
            (Some("a.db.example.com"), 3),
            (Some("example.com"), 3),
            (Some("example"), 3),
            (None, 3),
        ] {
            assert_eq!(find(&router, name), Some(route), "{name:?}");
        }
    }

    #[test]
    fn without_a_catch_all_strangers_find_nothing() {
        let mut router = Router::new();
        router.add(["db.example.com", "*.eu.example.com"], 1);
        assert_eq!(find(&router, Some("a.eu.example.com")), Some(1));
        assert_eq!((find(&router, None), find(&router, Some("example.com"))), (None, None));
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
            .prop_map(|labels| labels.join("."))
    }

    proptest! {
        #[test]
        fn agrees_with_looking_through_every_route(
            routes in prop::collection::vec((any::<bool>(), name()), 0..8),
            asked in prop::option::of(name()),
        ) {
            let mut router = Router::new();
            let written =
                |(wild, name): &(bool, String)| if *wild { format!("*.{name}") } else { name.clone() };
            let names: Vec<String> = routes.iter().map(written).collect();
            for (place, name) in names.iter().enumerate() {
                router.add([name.as_str()], place);
            }
            let last = |wanted: &str| names.iter().rposition(|name| name == wanted);
            let expected = asked.as_deref().and_then(|asked| {
                last(asked).or_else(|| last(&format!("*.{}", asked.split_once('.')?.1)))
            });
            prop_assert_eq!(find(&router, asked.as_deref()), expected);
        }
    }
}
