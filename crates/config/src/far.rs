//! The services of agents that a route takes.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use tieline_base::is_far_name;

use crate::place::Place;
use crate::problem::Problems;
use crate::route::Draft;

/// What people ask for by `tieline connect AGENT/SERVICE`, as a route takes it: either may be any.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FarMatch {
    /// The agent; none: any.
    pub agent: Option<String>,
    /// What it offers; none: all of it.
    pub service: Option<String>,
}

/// A text that is no such thing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "\"{0}\" names no services; write AGENT/SERVICE, like \"plant-7/ssh\", where either may be * for any"
)]
pub struct FarMatchError(String);

impl FarMatch {
    /// Whatever there is.
    pub const ANY: FarMatch = FarMatch { agent: None, service: None };

    /// Whether it takes `service` of `agent`.
    pub fn takes(&self, agent: &str, service: &str) -> bool {
        let fits = |own: &Option<String>, asked: &str| own.as_ref().is_none_or(|own| own == asked);
        fits(&self.agent, agent) && fits(&self.service, service)
    }

    /// The higher, the more exact: one that names the agent comes before one that names the service.
    pub fn rank(&self) -> u8 {
        2 * u8::from(self.agent.is_some()) + u8::from(self.service.is_some())
    }
}

impl FromStr for FarMatch {
    type Err = FarMatchError;

    fn from_str(text: &str) -> Result<Self, FarMatchError> {
        let part = |part: &str| match part {
            "*" => Some(None),
            name => is_far_name(name).then(|| Some(name.to_owned())),
        };
        let read = || {
            let (agent, service) = text.split_once('/')?;
            Some(FarMatch { agent: part(agent)?, service: part(service)? })
        };
        read().ok_or_else(|| FarMatchError(text.escape_debug().to_string()))
    }
}

impl fmt::Display for FarMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "*".into());
        write!(f, "{}/{}", part(&self.agent), part(&self.service))
    }
}

/// Two routes that take the same services: the second would never get one.
pub(crate) fn tell_of_equals(drafts: &[Draft], problems: &mut Problems) {
    let mut takers: HashMap<&FarMatch, Place> = HashMap::new();
    for draft in drafts.iter().filter(|draft| draft.match_sound) {
        for service in &draft.route.services {
            if let Some(first) = takers.insert(service, draft.route.place) {
                let message = format!("the route in line {} takes \"{service}\" already", first.line);
                problems.error(draft.route.place, message).hint("tell them apart by `service`");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FarMatch;

    fn of(text: &str) -> FarMatch {
        text.parse().unwrap()
    }

    #[test]
    fn a_match_takes_what_it_names() {
        assert!(of("plant-7/ssh").takes("plant-7", "ssh"));
        assert!(!of("plant-7/ssh").takes("plant-7", "web") && !of("plant-7/ssh").takes("plant-8", "ssh"));
        assert!(of("*/ssh").takes("any", "ssh") && !of("*/ssh").takes("any", "sshd"));
        assert!(of("plant-7/*").takes("plant-7", "x") && !of("plant-7/*").takes("plant-77", "x"));
        assert!(FarMatch::ANY.takes("a", "b"));
    }

    #[test]
    fn the_more_exact_stands_above() {
        let ranks = ["*/*", "*/ssh", "plant-7/*", "plant-7/ssh"].map(|text| of(text).rank());
        assert!(ranks.is_sorted_by(|one, other| one < other), "{ranks:?}");
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        for text in ["*/*", "plant-7/ssh", "plant-7/*", "*/db.main"] {
            assert_eq!(of(text).to_string(), text);
        }
        for text in ["", "plant-7", "a/b/c", "/ssh", "plant-7/", "-a/b", "a*/b", "a/*x", "a b/c"] {
            assert!(text.parse::<FarMatch>().is_err(), "{text}");
        }
    }
}
