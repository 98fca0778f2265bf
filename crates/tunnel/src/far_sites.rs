//! The agents of a server as far sites that upstreams and people reach: one of them, or any of a group.

use std::io;
use std::pin::Pin;

use tieline_base::{FarGroup, FarService};
use tieline_transport::{DialFar, Io};
use tokio::sync::watch;

use crate::agents::Agents;
use crate::live::{Core, LiveLink};

impl DialFar for Agents {
    fn dial(&self, far: &FarService) -> Pin<Box<dyn Future<Output = io::Result<Io>> + Send>> {
        let asked = self.ask(far, "", false);
        Box::pin(async move {
            let stream = asked?;
            stream.opened().await?;
            Ok(Io::Stream(Box::new(stream)))
        })
    }

    /// A link that waits for its agent still counts: what goes through it goes on.
    fn members(&self, group: &FarGroup) -> Vec<FarService> {
        let linked = self.all_linked().into_iter();
        let members = linked.filter(|(agent, link)| self.is_labelled(agent, group) && offers(link, group));
        members.map(|(agent, _)| FarService { agent, service: group.service.clone() }).collect()
    }

    /// Who has not said what it offers, as an older release does not, is asked.
    fn is_there(&self, far: &FarService) -> bool {
        let is_there = |core: &mut Core| {
            let offers = core.heard.offers().is_none_or(|offers| offers.has(&far.service));
            offers && core.link.attached()
        };
        self.link_of(&far.agent).is_some_and(|link| link.look(is_there))
    }

    fn changes(&self) -> watch::Receiver<()> {
        Agents::changes(self)
    }
}

impl Agents {
    /// The service of `group` at every agent that may be asked for it, linked up or not: first those that are
    /// there, of these the one with the fewest streams, drawn by lot among equals.
    pub(crate) fn candidates(&self, group: &FarGroup) -> Vec<FarService> {
        let labelled = self.roster().all().into_iter().filter(|(_, known)| known.labels.have(&group.labels));
        let far = |(agent, _)| FarService { agent, service: group.service.clone() };
        let mut all: Vec<_> =
            labelled.map(far).map(|far| (self.burden(&far), fastrand::u32(..), far)).collect();
        all.sort_unstable();
        all.into_iter().map(|(.., far)| far).collect()
    }

    /// How much a stream to `far` would be one too many: whether it is away, and how many there are.
    fn burden(&self, far: &FarService) -> (bool, usize) {
        let streams = |link: &LiveLink| link.look(|core| core.link.streams().count());
        let streams = self.link_of(&far.agent).map_or(0, |link| streams(&link));
        (!self.is_there(far), streams)
    }

    fn is_labelled(&self, agent: &str, group: &FarGroup) -> bool {
        self.roster().get(agent).is_some_and(|known| known.labels.have(&group.labels))
    }
}

/// Nobody is a member for what it has not said.
fn offers(link: &LiveLink, group: &FarGroup) -> bool {
    link.look(|core| core.heard.offers().is_some_and(|offers| offers.has(&group.service)))
}
