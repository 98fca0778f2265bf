//! `bandwidth` of a route: how fast bytes may go.

use tieline_base::ByteRate;

use crate::fields::{Fields, Taken};
use crate::problem::Problems;
use crate::value::Value;
use crate::words::BandwidthPer;

/// How fast bytes may go; in one direction at least.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Bandwidth {
    /// From clients.
    pub up: Option<ByteRate>,
    /// To clients.
    pub down: Option<ByteRate>,
    /// What is counted together.
    pub per: BandwidthPer,
}

/// Reads `bandwidth` of a route; one of a route that answers itself is told.
pub(crate) fn read(fields: &mut Fields, forwards: bool, problems: &mut Problems) -> Option<Bandwidth> {
    let Taken { value, place, .. } = fields.take::<Value>("bandwidth")?;
    if !forwards {
        problems.error(place, "`bandwidth` means nothing without `upstream`");
    }
    match value {
        Value::ByteRate(down) => Some(Bandwidth { up: None, down: Some(down), per: BandwidthPer::Exchange }),
        Value::Table(mut table) => {
            let written = table.has("up") || table.has("down");
            let (up, down) = (table.maybe("up"), table.maybe("down"));
            let per = table.word("per", BandwidthPer::from_word).unwrap_or(BandwidthPer::Exchange);
            table.done();
            if !written {
                let error = problems.error(place, "`bandwidth` limits nothing without `up` or `down`");
                error.hint("write bandwidth = { down = \"10MiB/s\" }");
            }
            Some(Bandwidth { up, down, per })
        }
        _ => None,
    }
}
