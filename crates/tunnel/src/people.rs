//! People's tokens: what somebody proves himself by, who reaches far services from his own device.
//!
//! Files in `people/` of the data folder, which nobody else can read: one for each token, named by the first
//! half of the hash of its secret, so that whoever reads the folder cannot use it. A token is good until it
//! expires or its file is taken away, and may be used as often as its owner likes. What it is used for is a
//! certificate for a key that was just made: it names the token by its serial number, and is good for as long
//! as that is.
//!
//! Which tokens are good is known in memory, because it is asked by workers that wait for no disk: what
//! another process changes, `tieline token revoke` above all, is seen by [`People::refresh`], which is called
//! within a moment of every change.

#![allow(clippy::disallowed_types)] // read by every worker that greets; held for look-ups alone

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use tieline_base::Secret;
use tieline_transport::tls::Fingerprint;

use crate::sha::random;
use crate::store::{StoreError, json, now, read, sync, write};
use crate::token::TokenError;

/// The folder of people's tokens.
#[derive(Clone, Debug)]
pub struct People {
    folder: PathBuf,
    /// Those that are good, by their ids.
    known: Arc<RwLock<HashMap<String, PersonEntry>>>,
}

/// What a person proves himself by.
pub struct PersonToken {
    secret: [u8; SECRET_BYTES],
    /// The authority that the server will show.
    pub(crate) authority: Fingerprint,
}

/// A token as the server keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PersonEntry {
    /// What it is called in lists: 16 hexadecimal digits. No secret.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// The groups that its owner belongs to.
    pub groups: Vec<String>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When it is good no longer, in seconds since 1970.
    pub expires: u64,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    name: String,
    groups: Vec<String>,
    /// Of the secret, whole.
    hash: String,
    created: u64,
    expires: u64,
}

/// 128 bits: nobody guesses one.
const SECRET_BYTES: usize = 16;

/// What stands before every token of a person.
pub(crate) const PREFIX: &str = "tlu1_";

/// How many digits of a secret's hash name a token.
pub(crate) const ID_DIGITS: usize = 16;

/// The longest name of a person, in bytes.
const NAME_MAX: usize = 64;

/// The most groups of one token.
const GROUPS_MAX: usize = 16;

impl PersonToken {
    /// Its text, for the one whose it is.
    pub fn text(&self) -> Secret {
        let mut bytes = self.secret.to_vec();
        bytes.extend_from_slice(&self.authority.0);
        Secret::new(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`TokenError::NoPersons`].
    pub fn parse(text: &str) -> Result<PersonToken, TokenError> {
        let read = || {
            let bytes = BASE64URL_NOPAD.decode(text.trim().strip_prefix(PREFIX)?.as_bytes()).ok()?;
            let (secret, authority) = bytes.split_first_chunk()?;
            Some(PersonToken { secret: *secret, authority: Fingerprint(authority.try_into().ok()?) })
        };
        read().ok_or(TokenError::NoPersons)
    }

    fn hash(&self) -> String {
        Fingerprint::of(&self.secret).to_string()
    }
}

impl std::fmt::Debug for PersonToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PersonToken(…)")
    }
}

impl People {
    /// Those of the server whose data folder is `data`; nothing is read or made.
    pub fn of(data: &Path) -> People {
        People { folder: data.join("people"), known: Arc::default() }
    }

    /// A token by which its owner is `name`, for `lifetime`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn create(
        &self,
        name: &str,
        groups: &[String],
        lifetime: Duration,
        authority: Fingerprint,
    ) -> Result<(PersonEntry, PersonToken), StoreError> {
        if !is_name(name) || name.len() > NAME_MAX {
            return Err(StoreError::Person(name.escape_debug().to_string()));
        }
        if groups.len() > GROUPS_MAX {
            return Err(StoreError::Groups(GROUPS_MAX));
        }
        let told = |error| StoreError::File { path: self.folder.clone(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(told)?;
        self.forget_old();
        let token = PersonToken { secret: random().map_err(told)?, authority };
        let (hash, created) = (token.hash(), now());
        let expires = created.saturating_add(lifetime.as_secs());
        let kept = Kept { name: name.into(), groups: groups.to_vec(), hash, created, expires };
        let id = kept.hash[..ID_DIGITS].to_owned();
        write(&self.folder.join(&id), &json(&kept))?;
        Ok((entry(id, kept), token))
    }

    /// Every token that is good, by name and age.
    pub fn list(&self) -> Vec<PersonEntry> {
        let mut all = self.all();
        all.retain(|entry| entry.expires >= now());
        all.sort_by(|one, other| {
            (&one.name, one.created, &one.id).cmp(&(&other.name, other.created, &other.id))
        });
        all
    }

    /// Takes away the token that is called `which`, or all of the person who is. Answers what is gone.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn revoke(&self, which: &str) -> Result<Vec<PersonEntry>, StoreError> {
        let mut gone = self.all();
        gone.retain(|entry| entry.id == which || entry.name == which);
        for entry in &gone {
            let path = self.folder.join(&entry.id);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::File { path, error });
                }
                _ => {}
            }
        }
        if !gone.is_empty() {
            sync(&self.folder)?;
            self.known().retain(|_, entry| !gone.contains(entry));
        }
        Ok(gone)
    }

    /// Whose `token` is, if it is good; from then on it is known. Blocks.
    ///
    /// # Errors
    /// [`TokenError`].
    pub(crate) fn proved_by(&self, token: &PersonToken) -> Result<PersonEntry, TokenError> {
        let hash = token.hash();
        let id = hash[..ID_DIGITS].to_owned();
        let kept = read::<Kept>(&self.folder.join(&id))?.filter(|kept| kept.hash == hash);
        let kept = kept.ok_or(TokenError::Revoked)?;
        if kept.expires < now() {
            return Err(TokenError::Expired);
        }
        let entry = entry(id, kept);
        self.known().insert(entry.id.clone(), entry.clone());
        // It may have been taken away, and that have been seen, while it was read.
        if self.folder.join(&entry.id).exists() {
            return Ok(entry);
        }
        self.known().remove(&entry.id);
        Err(TokenError::Revoked)
    }

    /// Reads the folder anew. Blocks.
    pub(crate) fn refresh(&self) {
        let all = self.list().into_iter().map(|entry| (entry.id.clone(), entry)).collect();
        *self.known() = all;
    }

    fn known(&self) -> RwLockWriteGuard<'_, HashMap<String, PersonEntry>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token that is called `id`, if it is good and `name`'s. Waits for nothing.
    pub(crate) fn good(&self, id: &str, name: &str) -> Option<PersonEntry> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(id).filter(|entry| entry.name == name && entry.expires >= now()).cloned()
    }

    /// When a token was last made or taken away.
    pub(crate) fn changed_at(&self) -> Option<SystemTime> {
        fs::metadata(&self.folder).and_then(|found| found.modified()).ok()
    }

    fn all(&self) -> Vec<PersonEntry> {
        let found = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let named = found.filter_map(|entry| entry.file_name().into_string().ok());
        let ids = named.filter(|id| id.len() == ID_DIGITS && !id.starts_with('.'));
        ids.filter_map(|id| {
            let kept = read::<Kept>(&self.folder.join(&id)).ok().flatten()?;
            Some(entry(id, kept))
        })
        .collect()
    }

    /// Takes away what has expired.
    fn forget_old(&self) {
        for old in self.all().into_iter().filter(|entry| entry.expires < now()) {
            let _ = fs::remove_file(self.folder.join(old.id));
        }
    }
}

/// Whether `name` can be a person's: it stands in filters and logs, and is no agent's.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@+".contains(&byte);
    name.starts_with(|first: char| first.is_ascii_alphanumeric()) && name.bytes().all(fits)
}

/// Whether the name in a certificate of somebody else's can be a person's: it must not be taken for an
/// agent's, or for a group's.
pub(crate) fn is_certified_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with("agent:") && !name.starts_with("group:")
}

fn entry(id: String, kept: Kept) -> PersonEntry {
    let Kept { name, groups, created, expires, .. } = kept;
    PersonEntry { id, name, groups, created, expires }
}

/// A serial number that names the token `id`: RFC 5280 §4.1.2.2, positive, and of the same length every time.
pub(crate) fn serial_for(id: &str) -> io::Result<Vec<u8>> {
    let mut serial = random::<8>()?.to_vec();
    serial[0] = serial[0] & 0x7f | 0x40;
    serial.extend(HEXLOWER.decode(id.as_bytes()).map_err(io::Error::other)?);
    Ok(serial)
}

/// The token that a serial number names.
pub(crate) fn id_in(serial: &str) -> Option<&str> {
    (serial.len() == 2 * ID_DIGITS).then(|| serial.get(ID_DIGITS..)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: Fingerprint = Fingerprint([7; 32]);
    const HOUR: Duration = Duration::from_secs(3600);

    fn people() -> (tempfile::TempDir, People) {
        let folder = tempfile::tempdir().unwrap();
        let people = People::of(folder.path());
        (folder, people)
    }

    #[test]
    fn a_token_proves_its_owner_until_it_is_revoked() {
        let (folder, people) = people();
        let (made, token) = people.create("ana", &["support".into()], HOUR, CA).unwrap();
        let token = PersonToken::parse(token.text().reveal()).unwrap();
        assert_eq!(token.authority, CA);
        for _ in 0..2 {
            assert_eq!(people.proved_by(&token).unwrap(), made);
        }
        assert_eq!(people.good(&made.id, "ana"), Some(made.clone()));
        assert_eq!(people.good(&made.id, "bob"), None);
        assert_eq!(people.list(), std::slice::from_ref(&made));
        let file = fs::read_to_string(folder.path().join("people").join(&made.id)).unwrap();
        assert!(!file.contains(&HEXLOWER.encode(&token.secret)) && file.contains(&token.hash()));
        assert_eq!(people.revoke("ana").unwrap(), std::slice::from_ref(&made));
        assert!(matches!(people.proved_by(&token), Err(TokenError::Revoked)));
        assert_eq!((people.good(&made.id, "ana"), people.list()), (None, Vec::new()));
        assert!(people.revoke("ana").unwrap().is_empty());
    }

    #[test]
    fn who_greets_waits_for_no_disk_and_what_another_process_does_is_seen_soon() {
        let (folder, people) = people();
        let (made, token) = people.create("ana", &[], HOUR, CA).unwrap();
        assert_eq!(people.good(&made.id, "ana"), None, "nobody has shown it, and nobody has looked");
        people.refresh();
        assert_eq!(people.good(&made.id, "ana"), Some(made.clone()));
        People::of(folder.path()).revoke("ana").unwrap();
        assert_eq!(people.good(&made.id, "ana"), Some(made.clone()), "no file was read");
        people.refresh();
        assert_eq!(people.good(&made.id, "ana"), None);
        assert!(matches!(people.proved_by(&token), Err(TokenError::Revoked)));
        assert_eq!(people.good(&made.id, "ana"), None);
    }

    #[test]
    fn one_of_several_is_revoked_by_its_id() {
        let (_folder, people) = people();
        let (one, _) = people.create("ana", &[], HOUR, CA).unwrap();
        let (other, kept) = people.create("ana", &[], HOUR, CA).unwrap();
        assert_eq!(people.revoke(&one.id).unwrap(), [one]);
        assert_eq!(people.list(), [other]);
        assert!(people.proved_by(&kept).is_ok());
    }

    #[test]
    fn an_expired_token_proves_nobody() {
        let (_folder, people) = people();
        let (made, token) = people.create("ana", &[], Duration::ZERO, CA).unwrap();
        let path = people.folder.join(&made.id);
        let mut kept = read::<Kept>(&path).unwrap().unwrap();
        kept.expires = now() - 1;
        write(&path, &json(&kept)).unwrap();
        assert!(matches!(people.proved_by(&token), Err(TokenError::Expired)));
        assert!(people.good(&made.id, "ana").is_none() && people.list().is_empty());
        people.create("bob", &[], HOUR, CA).unwrap();
        assert!(!path.exists(), "it is forgotten");
    }

    #[test]
    fn names_that_could_be_taken_for_something_else_are_refused() {
        let (_folder, people) = people();
        for name in ["", "agent:plant-7", "a b", "../x", "a\n", ".x", "a/b", &"a".repeat(65)] {
            assert!(people.create(name, &[], HOUR, CA).is_err(), "{name}");
        }
        for name in ["ana", "ana@example.com", "ana+oncall", "a.b-c_d"] {
            assert!(people.create(name, &[], HOUR, CA).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_serial_number_names_its_token() {
        let (_folder, people) = people();
        let (made, _) = people.create("ana", &[], HOUR, CA).unwrap();
        let serial = HEXLOWER.encode(&serial_for(&made.id).unwrap());
        assert_eq!(id_in(&serial), Some(&*made.id));
        assert_eq!(id_in("00"), None);
        assert_eq!(id_in(&format!("a{}b", "ü".repeat(15))), None, "no character is cut in two");
    }

    #[test]
    fn what_is_no_token_is_told() {
        for text in ["", "tlu1_", "tlu1_AAAA", "tla1_AAAA", "tlu1_!"] {
            assert!(matches!(PersonToken::parse(text), Err(TokenError::NoPersons)), "{text}");
        }
    }
}
