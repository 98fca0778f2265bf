//! Files that the config names.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::place::Spot;
use crate::problem::Problems;

/// The path in full of the file that the key `name` names. One that is not there is told: it would be found
/// out only when the config is obeyed. One that cannot be looked at is left to the server, which may be
/// another user.
pub(crate) fn found(name: &str, path: Spot<PathBuf>, folder: &Path, problems: &mut Problems) -> PathBuf {
    let Spot { value, place } = path;
    let path = folder.join(value);
    let wrong = match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => Some("is a folder, not a file"),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Some("does not exist")
        }
        _ => None,
    };
    if let Some(wrong) = wrong {
        problems.error(place, format!("`{name}`: {} {wrong}", path.display()));
    }
    path
}
