//! Which of its upstreams a request of a route goes to, where the route has several.

use std::sync::Arc;

use tieline_conn::HashBy;
use tieline_pool::balance::stable_key;
use tieline_wire::http1::Fields;

use crate::session::Ticket;
use crate::site::Target;

/// Where the requests of a route go: to one target, or to several that share them by weight.
#[derive(Debug)]
pub struct Split {
    first: Share,
    rest: Vec<Share>,
    total: u64,
    by: HashBy,
}

/// A target, and how many of all requests are its.
#[derive(Debug)]
pub struct Share {
    /// Its part of the sum of all weights; 0 takes it out of use.
    pub weight: u32,
    /// The target.
    pub target: Arc<Target>,
}

impl From<Arc<Target>> for Split {
    fn from(target: Arc<Target>) -> Self {
        Split::new(Share { weight: 1, target }, Vec::new(), HashBy::Nothing)
    }
}

impl Split {
    /// Shares the requests among `first` and the `rest`: what is equal by `by` goes to the same one; by
    /// nothing, each is drawn anew.
    pub fn new(first: Share, rest: Vec<Share>, by: HashBy) -> Self {
        let total = std::iter::once(&first).chain(&rest).map(|share| u64::from(share.weight)).sum();
        Self { first, rest, total, by }
    }

    /// Where the client of a request with these fields was before, and the target that leads there.
    pub(crate) fn came_back(&self, fields: &Fields<'_, '_>) -> Option<(Ticket, &Arc<Target>)> {
        let ticket = self.first.target.session.as_ref()?.of(fields)?;
        let leads = |target: &&Arc<Target>| {
            target.route.row.upstream_name().is_some_and(|name| stable_key(name) == ticket.upstream)
        };
        self.targets().find(leads).map(|target| (ticket, target))
    }

    /// What decides, if there is a choice.
    pub(crate) fn by(&self) -> Option<&HashBy> {
        (!self.rest.is_empty()).then_some(&self.by)
    }

    /// The target of a request for which `draw` was drawn, evenly from all numbers.
    pub(crate) fn choose(&self, draw: u64) -> &Arc<Target> {
        let mut left = draw.checked_rem(self.total).unwrap_or_default();
        for share in self.shares() {
            match left.checked_sub(share.weight.into()) {
                None => return &share.target,
                Some(behind) => left = behind,
            }
        }
        &self.first.target
    }

    /// Every target.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.shares().map(|share| &share.target)
    }

    fn shares(&self) -> impl Iterator<Item = &Share> {
        std::iter::once(&self.first).chain(&self.rest)
    }
}
