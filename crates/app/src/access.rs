//! Whom a route lets in, groups resolved to their members.

use std::sync::Arc;

use tieline_config as config;
use tieline_policy::approval::Terms;
use tieline_policy::{Access, Allow, Names, Networks};

/// What the config says of `route`.
pub(crate) fn of(route: &config::Route, live: &config::Live) -> Access {
    match &route.access {
        config::Access::Public => Access::Public,
        config::Access::Policy(allow) => Access::Policy(Allow {
            from: allow.from.as_ref().map(|from| from.iter().copied().collect::<Networks>()),
            identity: allow.identity.as_ref().map(|who| members(who, live)),
        }),
    }
}

/// What `route` says of approvals, if it needs any.
pub(crate) fn approval(route: &config::Route, live: &config::Live) -> Option<Arc<Terms>> {
    let config::Approval { by, holds, wait } = route.approval.as_ref()?;
    let asks: Vec<String> = by.iter().map(ToString::to_string).collect();
    let (asks, holds, wait) = (asks.join(", ").into(), *holds, *wait);
    Some(Arc::new(Terms { by: members(by, live), asks, holds, wait }))
}

/// All of `who`, groups with their members.
fn members(who: &[config::Who], live: &config::Live) -> Names {
    let names = |who: &config::Who| match (who.group, live.group(&who.name)) {
        (true, group) => group.map(|group| group.members.clone()).unwrap_or_default(),
        (false, _) => vec![who.name.clone()],
    };
    let groups = who.iter().filter(|who| who.group).map(|who| who.name.as_str().into()).collect();
    Names { names: who.iter().flat_map(names).map(Into::into).collect(), groups }
}
