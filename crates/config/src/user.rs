//! `[user.NAME]` as it is obeyed.

use std::path::{Path, PathBuf};

use tieline_base::Verifier;

use crate::fields::Fields;
use crate::files;
use crate::place::{Place, Spot};
use crate::postgres::Count;
use crate::problem::Problems;

/// Somebody who may log in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// The name that they log in by.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// What is known of the password; `None`: it is proved otherwise who they are.
    pub password: Option<Password>,
    /// How many clients may be logged in as they are; none: not said.
    pub connections: Option<Count>,
}

/// What is known of a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Password {
    /// Enough to verify it.
    Verifier(Verifier),
    /// The file that holds it.
    File(PathBuf),
}

/// Reads one user; `None` if it says nothing, or two things of a password, which has been told. `folder` is
/// the config file's.
pub(crate) fn read(
    name: Spot<String>,
    mut fields: Fields,
    folder: &Path,
    problems: &mut Problems,
) -> Option<User> {
    let Spot { value: name, place } = name;
    let both = fields.has("verifier") && fields.has("password_file");
    let nothing = ["verifier", "password_file", "connections"].iter().all(|key| fields.lacks(key));
    let file_place = fields.place_of("password_file");
    let verifier = fields.maybe("verifier").map(Password::Verifier);
    let file = fields.maybe("password_file");
    let connections = Count::read(&mut fields, "connections");
    fields.done();
    if both {
        let error = problems.error(file_place, "`password_file` beside `verifier`: one of them is enough");
        error.hint("take one of them away");
    }
    if nothing {
        let error = problems.error(place, format!("user \"{name}\" has no password, and so cannot log in"));
        error.hint(format!("write the `verifier` that `tieline user password {name}` prints"));
    }
    let file = file.map(|value| {
        let found = files::found("password_file", Spot { value, place: file_place }, folder, problems);
        Password::File(found)
    });
    let password = verifier.or(file);
    (password.is_some() || connections.is_some()).then_some(User { name, place, password, connections })
}
