//! Who may use a route.

use ipnet::IpNet;

use crate::fields::Fields;
use crate::place::{Place, Spot};
use crate::problem::Problems;
use crate::words::AccessWord;

/// Who decides about a route's connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// Everybody is let in.
    Public,
    /// These are let in, and nobody else.
    Policy(Allow),
}

/// What is asked of those that a route lets in: all that is there. Where nothing is, nobody may.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Allow {
    /// The networks that clients may come from.
    pub from: Option<Vec<IpNet>>,
    /// Who they must have proved to be.
    pub identity: Option<Vec<Who>>,
}

/// Somebody, or the members of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Who {
    /// The name of either.
    pub name: String,
    /// Whether it is a group's.
    pub group: bool,
    /// Where it stands.
    pub place: Place,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.group { GROUP } else { "" }, self.name)
    }
}

impl Allow {
    /// Whether nobody may, whoever comes from anywhere.
    pub fn is_nobody(&self) -> bool {
        let (from, identity) = (self.from.as_ref(), self.identity.as_ref());
        (from.is_none() && identity.is_none())
            || from.is_some_and(Vec::is_empty)
            || identity.is_some_and(Vec::is_empty)
    }

    /// Whether everybody may: a network holds every address, and nothing else is asked for.
    pub(crate) fn is_everybody(&self) -> bool {
        let all = |nets: &Vec<IpNet>| nets.iter().any(|net| net.prefix_len() == 0);
        self.identity.is_none() && self.from.as_ref().is_some_and(all)
    }
}

/// What stands before the name of a group.
const GROUP: &str = "group:";

/// Reads `access` and `allow` of a route that stands at `place`.
pub(crate) fn read(fields: &mut Fields, place: Place, problems: &mut Problems) -> Access {
    let sound = fields.is_sound();
    let word = fields.word("access", AccessWord::from_word);
    let allow = fields.table_if_written("allow").map(|allow| read_allow(allow, problems));
    match (word, allow) {
        (Some(AccessWord::Public), None) => Access::Public,
        (Some(AccessWord::Public), Some(allow)) => {
            let message = "`allow` means nothing beside access = \"public\", which lets everybody in";
            problems.error(allow.place, message).hint("take one of them away");
            Access::Public
        }
        // A word that was refused is told already; the key's default stands in for it.
        (Some(AccessWord::Policy) | None, Some(allow)) => Access::Policy(allow.value),
        (Some(AccessWord::Policy) | None, None) => {
            if sound {
                let warning =
                    problems.warning(place, "the route has no `allow`, so nobody can connect by it");
                warning.hint("name networks in allow = { from = [...] }, or write access = \"public\"");
            }
            Access::Policy(Allow::default())
        }
    }
}

fn read_allow(mut fields: Fields, problems: &mut Problems) -> Spot<Allow> {
    let (place, sound) = (fields.place(), fields.is_sound());
    let (has_from, has_identity) = (fields.has("from"), fields.has("identity"));
    let from: Vec<Spot<IpNet>> = fields.list("from");
    let identity: Vec<Spot<String>> = fields.list("identity");
    fields.done();
    for net in from.iter().filter(|net| net.value.prefix_len() == 0 && !has_identity) {
        let message = format!("`from` = {} lets everybody in", net.value);
        problems.warning(net.place, message).hint("say so: access = \"public\"");
    }
    let allow = Allow {
        from: has_from.then(|| from.into_iter().map(|net| net.value).collect()),
        identity: has_identity.then(|| identity.into_iter().map(who).collect()),
    };
    if sound && allow.is_nobody() {
        problems.warning(place, "`allow` names nobody, so nobody can connect by this route");
    }
    Spot { value: allow, place }
}

/// Who somebody may prove to be, or a group, as it is written.
pub(crate) fn identity(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix(GROUP).unwrap_or(text);
    let sound = text.len() <= 255 && !text.chars().any(char::is_control) && bare.trim() == bare;
    if sound && !bare.is_empty() {
        return Ok(text.into());
    }
    Err(format!(
        "\"{}\" is nobody's name; a name has 1 to 255 bytes, none of them a control character, and no \
         space around it",
        text.escape_debug()
    ))
}

pub(crate) fn who(Spot { value, place }: Spot<String>) -> Who {
    match value.strip_prefix(GROUP) {
        Some(name) => Who { name: name.into(), group: true, place },
        None => Who { name: value, group: false, place },
    }
}
