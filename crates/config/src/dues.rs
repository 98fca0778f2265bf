//! `[[upstream.NAME.share]]` as it is obeyed: what of scarce servers is due to whom.

use std::collections::HashMap;

use crate::fields::Fields;
use crate::place::{Place, Spot};
use crate::problem::Problems;
use crate::value::Value;

/// What is due to each of some users.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Due {
    /// Who they are; none: whoever no other share names.
    pub users: Vec<String>,
    /// What each gets beside the weights of others who want more: 1 to 1000.
    pub weight: u32,
    /// So many servers are kept for each.
    pub floor: u32,
    /// Each has no more at once; `None`: no limit of its own.
    pub cap: Option<u32>,
}

/// Reads `share` of an upstream whose pool has so many servers; what cannot be kept is told.
pub(crate) fn read(fields: &mut Fields, size: Option<u32>, problems: &mut Problems) -> Vec<Due> {
    let tables: Vec<Spot<Value>> = fields.value("share");
    let mut seen: HashMap<Option<String>, Place> = HashMap::new();
    let (mut dues, mut floors) = (Vec::new(), 0u64);
    for Spot { value, place } in tables {
        let Value::Table(fields) = value else { continue };
        let (due, floor_place) = one(fields, problems);
        let whom: Vec<Option<String>> = match &*due.users {
            [] => vec![None],
            users => users.iter().cloned().map(Some).collect(),
        };
        for user in whom {
            let of = user.as_ref().map_or("everybody else".into(), |user| format!("user \"{user}\""));
            if let Some(first) = seen.insert(user, place) {
                let message = format!("the share in line {} is that of {of} already", first.line);
                problems.error(place, message).hint("leave one of them out");
            }
        }
        let before = floors;
        floors += u64::from(due.floor) * due.users.len() as u64;
        let size = u64::from(size.unwrap_or(u32::MAX));
        if before <= size && floors > size {
            let message = format!("all floors together are {floors}, and the pool has {size} servers");
            problems.error(floor_place, message).hint("lower them, or raise `pool.size`");
        }
        dues.push(due);
    }
    dues
}

fn one(mut fields: Fields, problems: &mut Problems) -> (Due, Place) {
    let floor_place = fields.place_of("floor");
    let users = fields.list("user").into_iter().map(|spot: Spot<String>| spot.value).collect();
    let due = Due {
        users,
        weight: fields.whole("weight").unwrap_or(1),
        floor: fields.whole("floor").unwrap_or(0),
        cap: fields.whole("cap"),
    };
    fields.done();
    if due.users.is_empty() && due.floor > 0 {
        let message = "`floor` is kept for users who are named: nobody knows how many others there will be";
        problems.error(floor_place, message).hint("write user = \"…\" beside it");
    }
    if let Some(cap) = due.cap
        && due.floor > cap
    {
        let message = format!("`floor` = {} is more than `cap` = {cap}", due.floor);
        problems.error(floor_place, message);
    }
    (due, floor_place)
}
