//! Passwords of users and servers: read from their files before anything changes, and what is kept of them.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::rand::{GetRandomFlags, getrandom};
use tieline_base::{Secret, Verifier};
use tieline_config as config;
use tieline_postgres::{User, Users};
use tieline_wire::postgres::scram::{ITERATIONS, SALT_BYTES, derive};

use crate::session_keys;

/// The longest file of a password: more than any server takes.
const FILE_BYTES_MAX: u64 = 4 * 1024;

/// The file of the key by which strangers are answered, in the data folder.
const STRANGERS: &str = "login.key";

/// The passwords that a config names, and its users.
pub(crate) struct Passwords {
    by_path: HashMap<PathBuf, Secret>,
    users: Arc<Users>,
    by_name: HashMap<Box<str>, User>,
    /// Where the key of strangers was read; none where nobody logs in.
    key: Option<[u8; 32]>,
}

impl Default for Passwords {
    fn default() -> Self {
        let users = crate::databases::nobody();
        Self { by_path: HashMap::new(), users, by_name: HashMap::new(), key: None }
    }
}

impl Passwords {
    /// Reads what `live` names. What was made of a password `before`, and has not changed, stays.
    ///
    /// # Errors
    /// Every file that is of no use, and why.
    pub(crate) fn load(live: &config::Live, folder: &Path, before: &Self) -> Result<Self, Vec<String>> {
        let (mut loaded, mut errors) = (Self::default(), Vec::new());
        for path in paths(live) {
            match read(path) {
                Ok(password) => drop(loaded.by_path.insert(path.to_owned(), password)),
                Err(error) => errors.push(error),
            }
        }
        if live.listeners.iter().any(|listener| listener.protocol == config::Protocol::Postgres) {
            match before.key.map_or_else(|| session_keys::secret(folder, STRANGERS), Ok) {
                Ok(key) => loaded.key = Some(key),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let users = live.users.iter().filter_map(|user| {
            Some((user.name.as_str().into(), loaded.user(&user.name, user.password.as_ref()?, before)))
        });
        let by_name: HashMap<Box<str>, User> = users.collect();
        let key = loaded.key.unwrap_or_default();
        let same = by_name == before.by_name && loaded.key == before.key;
        loaded.users = if same { before.users.clone() } else { Arc::new(Users::new(by_name.clone(), &key)) };
        loaded.by_name = by_name;
        Ok(loaded)
    }

    /// Whether a file no longer holds what was read from it.
    pub(crate) fn changed(&self) -> bool {
        self.by_path.iter().any(|(path, kept)| read(path).is_ok_and(|password| password != *kept))
    }

    /// Who may log in with a password.
    pub(crate) fn users(&self) -> Arc<Users> {
        self.users.clone()
    }

    /// The password in the file at `path`.
    pub(crate) fn of(&self, path: &Path) -> Option<Secret> {
        self.by_path.get(path).cloned()
    }

    fn user(&self, name: &str, password: &config::Password, before: &Self) -> User {
        match password {
            config::Password::Verifier(verifier) => User { verifier: verifier.clone(), password: None },
            config::Password::File(path) => {
                let password = self.of(path);
                let known = before.by_name.get(name).filter(|known| known.password == password);
                match (known, password) {
                    (Some(known), _) if known.password.is_some() => known.clone(),
                    (_, password) => {
                        let text = password.as_ref().map_or("", Secret::reveal);
                        User { verifier: verifier(text.as_bytes(), usual_iterations()), password }
                    }
                }
            }
        }
    }
}

/// How often a password is hashed where nobody says otherwise.
pub(crate) fn usual_iterations() -> NonZeroU32 {
    NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN)
}

/// What is kept of `password`, with a salt of its own. Costs milliseconds.
pub(crate) fn verifier(password: &[u8], iterations: NonZeroU32) -> Verifier {
    let mut salt = [0; SALT_BYTES];
    // getrandom(2): up to 256 bytes come whole or not at all; without any, salts are still of one process.
    let _ = getrandom(&mut salt[..], GetRandomFlags::empty());
    Verifier::Scram(derive(password, &salt, iterations).verifier(&salt, iterations))
}

fn paths(live: &config::Live) -> impl Iterator<Item = &Path> {
    let servers = live.upstreams.iter().filter_map(|upstream| upstream.postgres.as_ref());
    let of_servers = servers.flat_map(|servers| {
        let files = [&servers.password_file, &servers.replicas.password_file];
        files.into_iter().filter_map(|file| file.as_deref())
    });
    let of_users = live.users.iter().filter_map(|user| match &user.password {
        Some(config::Password::File(path)) => Some(path.as_path()),
        Some(config::Password::Verifier(_)) | None => None,
    });
    of_servers.chain(of_users)
}

/// The password in the file at `path`, which others may not read.
pub(crate) fn read(path: &Path) -> Result<Secret, String> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(told)?;
    // Asked of the open file: a path could lead elsewhere by now.
    let mode = file.metadata().map_err(told)?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        let path = path.display();
        return Err(format!("{path} has mode {mode:04o}, so everybody may read it; write chmod 600 {path}"));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(told)?;
    let password =
        text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if password.is_empty() || password.contains('\0') {
        return Err(format!("{}: holds no password", path.display()));
    }
    Ok(Secret::new(password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pw");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn a_line_break_at_the_end_is_not_part_of_a_password() {
        for (text, password) in [("secret\n", "secret"), ("secret\r\n", "secret"), (" s p \n\n", " s p \n")] {
            let (_folder, path) = written(text, 0o600);
            assert_eq!(read(&path).unwrap().reveal(), password);
        }
    }

    #[test]
    fn a_password_that_everybody_may_read_is_refused() {
        let (_folder, path) = written("secret\n", 0o644);
        let error = read(&path).unwrap_err();
        assert!(error.contains("chmod 600") && !error.contains("secret"), "{error}");
        let (_folder, path) = written("\n", 0o600);
        assert!(read(&path).unwrap_err().ends_with("holds no password"));
    }

    #[test]
    fn a_verifier_has_a_salt_of_its_own() {
        let made = || verifier(b"secret", usual_iterations());
        assert_ne!(made(), made());
    }
}
