//! What a route asks of those who reach far services by it, beyond who they are.

use std::time::Duration;

use crate::access::{Who, who};
use crate::fields::Fields;
use crate::place::Spot;
use crate::problem::Problems;

/// Who has to agree before a service is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Approval {
    /// Who may, beside operators.
    pub by: Vec<Who>,
    /// The longest that one holds.
    pub holds: Duration,
    /// How long a request waits for its answer.
    pub wait: Duration,
}

/// How long a stream to a far service may last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FarTimeouts {
    /// Without a byte either way; none: for ever.
    pub idle: Option<Duration>,
    /// At all; none: for ever.
    pub max_age: Option<Duration>,
}

/// Reads `approval` of a route.
pub(crate) fn approval(fields: &mut Fields) -> Option<Approval> {
    let mut fields = fields.table_if_written("approval")?;
    let by: Vec<Spot<String>> = fields.list("by");
    let (holds, wait) = (fields.value("for"), fields.value("wait"));
    fields.done();
    Some(Approval { by: by.into_iter().map(who).collect(), holds, wait })
}

/// Reads `timeouts` of a route.
pub(crate) fn timeouts(fields: &mut Fields, problems: &mut Problems) -> FarTimeouts {
    let mut fields = fields.table("timeouts");
    let place = fields.place_of("idle");
    let timeouts = FarTimeouts { idle: fields.maybe("idle"), max_age: fields.maybe("max_age") };
    fields.done();
    if timeouts.idle.zip(timeouts.max_age).is_some_and(|(idle, max_age)| idle > max_age) {
        let error = problems.error(place, "`idle` is longer than `max_age`, so it never comes");
        error.hint("leave it out or lower it");
    }
    timeouts
}
