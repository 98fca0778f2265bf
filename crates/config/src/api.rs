//! `api` of a route: the document that its requests must keep to.

use std::path::{Path, PathBuf};

use crate::fields::{Fields, Taken};
use crate::files;
use crate::place::{Place, Spot};
use crate::problem::Problems;
use crate::value::Value;
use crate::words::{ApiMode, UnknownQuery};

/// The document that requests must keep to. That it is sound is known only when it is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Api {
    /// Where its name stands.
    pub place: Place,
    /// The file, in full.
    pub document: PathBuf,
    /// What becomes of requests that do not keep to it.
    pub mode: ApiMode,
    /// The path below which its paths lie; none: what it says itself.
    pub base: Option<String>,
    /// Whether parameters of the query that it does not name pass.
    pub unknown_query: bool,
}

/// Reads `api` of a route. `folder` is the config file's.
pub(crate) fn read(fields: &mut Fields, folder: &Path, problems: &mut Problems) -> Option<Api> {
    let Taken { value, place, .. } = fields.take::<Value>("api")?;
    match value {
        Value::Path(path) => {
            let document = files::found("api", Spot { value: path, place }, folder, problems);
            let (mode, base, unknown_query) = (ApiMode::Enforce, None, false);
            Some(Api { place, document, mode, base, unknown_query })
        }
        Value::Table(table) => from_table(table, folder, problems),
        _ => None,
    }
}

fn from_table(mut fields: Fields, folder: &Path, problems: &mut Problems) -> Option<Api> {
    let document = fields.take::<PathBuf>("document");
    let mode = fields.word("mode", ApiMode::from_word).unwrap_or(ApiMode::Enforce);
    let base = fields.maybe("base");
    let unknown_query = fields.word("unknown_query", UnknownQuery::from_word) == Some(UnknownQuery::Pass);
    fields.done();
    let Taken { value, place, .. } = document?;
    let document = files::found("document", Spot { value, place }, folder, problems);
    Some(Api { place, document, mode, base, unknown_query })
}
