//! `[group.NAME]` as it is obeyed.

use crate::fields::Fields;
use crate::place::{Place, Spot};
use crate::problem::Problems;

/// People and programs that policy speaks of together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// The names of its members, as they prove them; sorted, none twice.
    pub members: Vec<String>,
}

/// Reads one group.
pub(crate) fn read(name: Spot<String>, mut fields: Fields, problems: &mut Problems) -> Group {
    let written: Vec<Spot<String>> = fields.list("members");
    fields.done();
    for member in written.iter().filter(|member| member.value.starts_with("group:")) {
        let message = format!("\"{}\" is a group, and groups have no groups for members", member.value);
        problems.error(member.place, message).hint("name its members");
    }
    let mut members: Vec<String> = written.into_iter().map(|member| member.value).collect();
    members.sort_unstable();
    members.dedup();
    Group { name: name.value, place: name.place, members }
}
