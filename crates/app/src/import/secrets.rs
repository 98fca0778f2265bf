//! Passwords on their way from one tool to another: they go into files of their own, or nowhere.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tieline_base::{Secret, Verifier};

use super::ini::Userlist;
use super::notes::Notes;

/// What is known of users, and the files that will hold their passwords.
pub(super) struct Secrets {
    file: String,
    users: Vec<(String, Known, usize)>,
    folder: Option<PathBuf>,
    written: BTreeMap<PathBuf, Secret>,
}

/// What is known of a password.
pub(super) enum Known {
    Verifier(Verifier),
    Password(Secret),
}

impl Secrets {
    /// The users of a userlist; `folder` is where passwords are written.
    pub(super) fn of(Userlist { file, users }: Userlist, folder: Option<&Path>, notes: &mut Notes) -> Self {
        let mut known: Vec<(String, Known, usize)> = Vec::new();
        for (name, kept, line) in users {
            if kept.is_empty() {
                notes.tell_of(
                    &file,
                    line,
                    format!("user \"{name}\" has no password, and cannot log in by one"),
                );
                continue;
            }
            if known.iter().any(|(other, ..)| *other == name) {
                notes.tell_of(&file, line, format!("user \"{name}\" stands there twice; the first is taken"));
                continue;
            }
            // As PgBouncer tells them apart: what looks like a verifier is one.
            let is = kept.parse().map_or_else(|_| Known::Password(Secret::new(kept)), Known::Verifier);
            known.push((name, is, line));
        }
        Self { file, users: known, folder: folder.map(Path::to_owned), written: BTreeMap::new() }
    }

    /// The file of the users.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Takes the users out.
    pub(super) fn take_users(&mut self) -> Vec<(String, Known, usize)> {
        std::mem::take(&mut self.users)
    }

    /// The password of `name`, if it is known as it is.
    pub(super) fn password_of(&self, name: &str) -> Option<Secret> {
        self.users.iter().find_map(|(user, known, _)| match known {
            Known::Password(password) if user == name => Some(password.clone()),
            _ => None,
        })
    }

    /// The file that will hold `password`, called after `name`; `None` if nobody said where files go.
    pub(super) fn keep(&mut self, name: &str, password: Secret) -> Option<PathBuf> {
        let folder = self.folder.clone()?;
        let plain: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' })
            .collect();
        let numbered = |at: usize| if at == 1 { format!("{plain}.pw") } else { format!("{plain}-{at}.pw") };
        let free = |path: &PathBuf| self.written.get(path).is_none_or(|kept| *kept == password);
        let path = (1..).map(|at| folder.join(numbered(at))).find(free)?;
        self.written.insert(path.clone(), password);
        Some(path)
    }

    /// Writes the files.
    ///
    /// # Errors
    /// One of them is there already, or cannot be written.
    pub(super) fn write(&self) -> std::io::Result<()> {
        let Some(folder) = self.folder.as_ref().filter(|_| !self.written.is_empty()) else { return Ok(()) };
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        for (path, password) in &self.written {
            let told = |error: std::io::Error| {
                std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            };
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(told)?;
            file.write_all(password.reveal().as_bytes()).map_err(told)?;
        }
        Ok(())
    }
}
