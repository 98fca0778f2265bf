//! What the server keeps of agents: the tokens that wait to be redeemed, and the certificates that are good.
//!
//! Files in `agents/` of the data folder, which nobody else can read. `tokens/HASH` is a token by the hash of
//! its secret, so that whoever reads the folder cannot join. `known/NAME` is an agent: a certificate that is
//! not there is not good, whoever signed it. Taking the file away revokes the agent. Every change is one
//! rename, so a crash leaves the old or the new; and one is made at a time, by whatever process, so that none
//! is made by what was true before another. All of it blocks: see [`Roster`](crate::roster::Roster).

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, DirEntryExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use tieline_base::{Clock, Labels, is_far_name};
use tieline_transport::tls::Fingerprint;

use crate::known::{Good, Known, as_text};
use crate::sha::random;
use crate::token::{Token, TokenError};

/// The folder of the server's agents.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// A certificate that was issued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Issued {
    /// It and its authority's, in PEM.
    pub chain: String,
    /// What is kept of it.
    pub good: Good,
}

/// What was taken away from an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revoked {
    /// Whether it had a certificate.
    pub agent: bool,
    /// Tokens that nobody can redeem any more.
    pub tokens: usize,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name is none.
    #[error("\"{0}\" is no name of an agent; it has 1 to 63 letters, digits, dots, hyphens and underscores")]
    Name(String),
    /// The name is no person's.
    #[error(
        "\"{0}\" is no person's name; it has 1 to 64 letters, digits, dots, hyphens, underscores, @ and +, a \
         letter or digit first"
    )]
    Person(String),
    /// There are too many groups.
    #[error("a token names at most {0} groups")]
    Groups(usize),
    /// A file cannot be read or written.
    #[error("{path}: {error}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What gives an agent the right to a certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proof<'a> {
    /// A token that it has redeemed.
    Token(&'a Token),
    /// The serial number of a good certificate, which is to be renewed.
    Certificate(&'a str),
}

/// For how long the same key gets its certificate again, should the answer have been lost.
const AGAIN: Duration = Duration::from_secs(600);

/// No file here is longer.
const FILE_MAX: u64 = 16 * 1024;

#[derive(Serialize, Deserialize)]
struct Pending {
    agent: String,
    #[serde(with = "as_text")]
    labels: Labels,
    /// Seconds since 1970.
    expires: u64,
}

#[derive(Serialize, Deserialize)]
struct Redeemed {
    agent: String,
    #[serde(with = "as_text")]
    labels: Labels,
    /// The hash of the key that it was redeemed for.
    key: String,
    /// Seconds since 1970.
    at: u64,
}

impl Store {
    /// The store of the server whose data folder is `data`; nothing is read or made.
    pub fn of(data: &Path) -> Store {
        Store { folder: data.join("agents") }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folders, if they are not there.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn make(&self) -> Result<(), StoreError> {
        for folder in [self.tokens(), self.known()] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|error| StoreError::File { path: folder, error })?;
        }
        Ok(())
    }

    /// A token with which an agent becomes `agent`, labelled with `labels`, within `lifetime`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn issue_token(
        &self,
        agent: &str,
        labels: Labels,
        lifetime: Duration,
        authority: Fingerprint,
    ) -> Result<Token, StoreError> {
        checked(agent)?;
        self.make()?;
        self.forget_old();
        let path = self.tokens();
        let secret = random().map_err(|error| StoreError::File { path: path.clone(), error })?;
        let token = Token::new(secret, authority);
        let pending = Pending { agent: agent.into(), labels, expires: now() + lifetime.as_secs() };
        write(&path.join(token.hash()), &json(&pending))?;
        Ok(token)
    }

    /// Whether anybody may redeem `token`, or has just done so: cheap, for strangers ask.
    pub(crate) fn has_token(&self, token: &Token) -> bool {
        self.tokens().join(token.hash()).exists() || self.used_token(token).exists()
    }

    /// Redeems `token` for `key`, which has the hash of an agent's public key. Answers the agent's name.
    ///
    /// # Errors
    /// [`TokenError`].
    pub(crate) fn redeem(&self, token: &Token, key: Fingerprint) -> Result<String, TokenError> {
        let _alone = self.alone()?;
        let (path, used) = (self.tokens().join(token.hash()), self.used_token(token));
        let Some(pending) = read::<Pending>(&path)? else {
            let again = read::<Redeemed>(&used)?.filter(|it| it.key == key.to_string());
            let again = again.filter(|it| now() <= it.at + AGAIN.as_secs());
            return again.map(|it| it.agent).ok_or(TokenError::Unknown);
        };
        if pending.expires < now() {
            return Err(TokenError::Expired);
        }
        let Pending { agent, labels, .. } = pending;
        let redeemed = Redeemed { agent, labels, key: key.to_string(), at: now() };
        write(&used, &json(&redeemed))?;
        // Once: should it stay, nobody may have it.
        fs::remove_file(&path).map_err(|error| StoreError::File { path, error })?;
        Ok(redeemed.agent)
    }

    /// From now on the certificate `issued` of `agent` is good, if `proof` still holds; whether it does.
    /// `then` is told how the agent stands, before anybody else can change that.
    pub(crate) fn admit(
        &self,
        agent: &str,
        issued: Good,
        proof: Proof<'_>,
        then: impl FnOnce(Known),
    ) -> Result<bool, StoreError> {
        let by_token = match proof {
            Proof::Token(token) => Some(token),
            Proof::Certificate(_) => None,
        };
        self.change(agent, then, |known| match (proof, by_token) {
            (Proof::Certificate(shown), _) => {
                let mut known = known?;
                known.renew(shown, issued, now()).then_some(known)
            }
            (Proof::Token(_), token) => {
                let redeemed = read::<Redeemed>(&self.used_token(token?)).ok().flatten();
                redeemed.filter(|it| it.agent == agent).map(|it| Known::joined(issued, it.labels))
            }
        })
    }

    /// Changes what is kept of `agent`, if `change` answers how; whether it did. Nobody else changes anything
    /// meanwhile, and until `then` has heard of it.
    pub(crate) fn change(
        &self,
        agent: &str,
        then: impl FnOnce(Known),
        change: impl FnOnce(Option<Known>) -> Option<Known>,
    ) -> Result<bool, StoreError> {
        checked(agent)?;
        let _alone = self.alone()?;
        let Some(changed) = change(self.read(agent)?) else { return Ok(false) };
        write(&self.known().join(agent), &json(&changed))?;
        then(changed);
        Ok(true)
    }

    /// What is kept of `agent`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read(&self, agent: &str) -> Result<Option<Known>, StoreError> {
        checked(agent)?;
        read(&self.known().join(agent))
    }

    /// No certificate of `agent` is good any more, and no token for it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn revoke(&self, agent: &str) -> Result<Revoked, StoreError> {
        checked(agent)?;
        let _alone = self.alone()?;
        let tokens = self.forget_tokens(&|pending: &Pending| pending.agent == agent);
        self.forget_used(&|redeemed: &Redeemed| redeemed.agent == agent);
        let path = self.known().join(agent);
        match fs::remove_file(&path) {
            Ok(()) => sync(&self.known()).map(|()| Revoked { agent: true, tokens }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Revoked { agent: false, tokens }),
            Err(error) => Err(StoreError::File { path, error }),
        }
    }

    /// Every agent that has joined, by name, with the number of its file, which every change changes.
    pub fn names(&self) -> Vec<(String, u64)> {
        let found = fs::read_dir(self.known()).into_iter().flatten().flatten();
        let named = found.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.ino())));
        let mut names: Vec<_> = named.filter(|(name, _)| is_far_name(name)).collect();
        names.sort_unstable();
        names
    }

    /// When an agent was last admitted or revoked.
    pub(crate) fn changed_at(&self) -> Option<SystemTime> {
        fs::metadata(self.known()).and_then(|found| found.modified()).ok()
    }

    /// Keeps every other change waiting for as long as what comes back lives.
    pub(crate) fn alone(&self) -> Result<fs::File, StoreError> {
        let path = self.folder.join("lock");
        let locked = || {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            file.lock().map(|()| file)
        };
        locked().map_err(|error| StoreError::File { path: path.clone(), error })
    }

    /// Where it stands who has redeemed `token`.
    fn used_token(&self, token: &Token) -> PathBuf {
        self.tokens().join(token.hash()).with_extension("used")
    }

    fn tokens(&self) -> PathBuf {
        self.folder.join("tokens")
    }

    fn known(&self) -> PathBuf {
        self.folder.join("known")
    }

    /// Takes away tokens that can no longer be redeemed, and what a crash has left half written.
    fn forget_old(&self) {
        self.forget_tokens(&|pending: &Pending| pending.expires < now());
        self.forget_used(&|redeemed: &Redeemed| redeemed.at + AGAIN.as_secs() < now());
        for folder in [self.folder.clone(), self.tokens(), self.known()] {
            for path in files(&folder).filter(|path| is_stale_draft(path)) {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn forget_used(&self, forget: &dyn Fn(&Redeemed) -> bool) {
        for path in files(&self.tokens()) {
            let used = path.extension().is_some_and(|extension| extension == "used");
            if used && read::<Redeemed>(&path).ok().flatten().is_some_and(|it| forget(&it)) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// How many were forgotten.
    fn forget_tokens(&self, forget: &dyn Fn(&Pending) -> bool) -> usize {
        let forgotten = files(&self.tokens()).filter(|path| {
            path.extension().is_none()
                && read::<Pending>(path).ok().flatten().is_some_and(|it| forget(&it))
                && fs::remove_file(path).is_ok()
        });
        forgotten.count()
    }
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Whether it was to be put in another's place, an hour ago, and never was.
fn is_stale_draft(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let age = || {
        let written = fs::metadata(path).and_then(|found| found.modified()).ok()?;
        Clock::wall().duration_since(written).ok()
    };
    name.starts_with('.') && name.ends_with(".new") && age().is_some_and(|age| age > DRAFT_MAX)
}

/// No write takes longer.
const DRAFT_MAX: Duration = Duration::from_secs(3600);

fn checked(agent: &str) -> Result<(), StoreError> {
    if is_far_name(agent) { Ok(()) } else { Err(StoreError::Name(agent.escape_debug().to_string())) }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    Clock::wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("text and numbers are JSON")
}

pub(crate) fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, StoreError> {
    let text = read_text(path).map_err(|error| StoreError::File { path: path.into(), error })?;
    let wrong = |_| StoreError::File { path: path.into(), error: io::ErrorKind::InvalidData.into() };
    text.map(|text| serde_json::from_str(&text).map_err(wrong)).transpose()
}

fn read_text(path: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    match fs::File::open(path) {
        Ok(file) => file.take(FILE_MAX).read_to_string(&mut text).map(|_| Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts a file that nobody else can read in its place whole, and sees to it that it stays.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let told = |error| StoreError::File { path: path.into(), error };
    let number: [u8; 8] = random().map_err(told)?;
    // Hidden: names of agents begin with a letter or digit.
    let name = format!(".{}.new", HEXLOWER.encode(&number));
    let beside = path.with_file_name(name);
    let put = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    put().map_err(told)?;
    path.parent().map_or(Ok(()), sync)
}

pub(crate) fn sync(folder: &Path) -> Result<(), StoreError> {
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| StoreError::File { path: folder.into(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::Standing;

    const CA: Fingerprint = Fingerprint([7; 32]);
    const KEY: Fingerprint = Fingerprint([1; 32]);
    const OTHER: Fingerprint = Fingerprint([2; 32]);
    const HOUR: Duration = Duration::from_secs(3600);

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of(folder.path());
        store.make().unwrap();
        (folder, store)
    }

    fn token(store: &Store, agent: &str) -> Token {
        store.issue_token(agent, "site=berlin".parse().unwrap(), HOUR, CA).unwrap()
    }

    fn good(serial: &str) -> Good {
        Good { serial: serial.into(), since: now(), until: now() + 3600 }
    }

    fn standing(store: &Store, agent: &str, serial: &str) -> Standing {
        store.read(agent).unwrap().map_or(Standing::Unknown, |known| known.standing(serial, now()))
    }

    fn admit(store: &Store, agent: &str, serial: &str, proof: Proof<'_>) -> bool {
        let mut told = None;
        let admitted = store.admit(agent, good(serial), proof, |known| told = Some(known)).unwrap();
        assert_eq!(told.is_some(), admitted);
        admitted
    }

    /// Lets `agent` in by a token, with its first certificate.
    fn joined(store: &Store, agent: &str, serial: &str) -> Token {
        let token = token(store, agent);
        assert_eq!(store.redeem(&token, KEY).unwrap(), agent);
        assert!(admit(store, agent, serial, Proof::Token(&token)));
        token
    }

    #[test]
    fn a_token_is_redeemed_once_and_again_by_the_same_key_alone() {
        let (_folder, store) = store();
        let token = token(&store, "plant-7");
        assert!(store.has_token(&token));
        assert_eq!(store.redeem(&token, KEY).unwrap(), "plant-7");
        assert_eq!(store.redeem(&token, KEY).unwrap(), "plant-7");
        assert!(matches!(store.redeem(&token, OTHER), Err(TokenError::Unknown)));
        assert!(store.has_token(&token) && !store.has_token(&Token::new([9; 16], CA)));
    }

    #[test]
    fn the_folder_does_not_hold_what_redeems() {
        let (folder, store) = store();
        let text = token(&store, "plant-7").text();
        let secret = &text.reveal()[5..][..20];
        for entry in fs::read_dir(folder.path().join("agents/tokens")).unwrap() {
            let path = entry.unwrap().path();
            assert!(!fs::read_to_string(&path).unwrap().contains(secret));
            assert!(!path.display().to_string().contains(secret));
        }
    }

    #[test]
    fn an_expired_or_foreign_token_is_of_no_use() {
        let (_folder, store) = store();
        let token = token(&store, "a");
        let path = store.tokens().join(token.hash());
        let pending = Pending { agent: "a".into(), labels: Labels::default(), expires: now() - 1 };
        write(&path, &json(&pending)).unwrap();
        assert!(matches!(store.redeem(&token, KEY), Err(TokenError::Expired)));
        assert!(matches!(store.redeem(&Token::new([9; 16], CA), KEY), Err(TokenError::Unknown)));
    }

    #[test]
    fn an_agent_is_what_its_token_says() {
        let (_folder, store) = store();
        joined(&store, "a", "01");
        joined(&store, "x.new", "01");
        let names: Vec<String> = store.names().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "x.new"]);
        let before = store.names();
        assert!(admit(&store, "a", "02", Proof::Certificate("01")));
        assert_ne!(store.names(), before, "whoever looks sees that it has changed");
        let known = store.read("a").unwrap().unwrap();
        assert_eq!(known.labels.to_string(), "site=berlin");
        assert!(
            standing(&store, "a", "01") == Standing::Good && standing(&store, "a", "02") == Standing::Good
        );
    }

    #[test]
    fn who_is_revoked_comes_back_by_nothing_that_was_good_before() {
        let (_folder, store) = store();
        let used = joined(&store, "a", "01");
        let pending = token(&store, "a");
        let begun = token(&store, "a");
        assert_eq!(store.redeem(&begun, KEY).unwrap(), "a");
        assert_eq!(store.revoke("a").unwrap(), Revoked { agent: true, tokens: 1 });
        // Neither by its used token, nor by one that waits, nor by a renewal or a joining that was begun.
        for token in [&used, &pending] {
            assert!(matches!(store.redeem(token, KEY), Err(TokenError::Unknown)));
        }
        for proof in [Proof::Certificate("01"), Proof::Token(&used), Proof::Token(&begun)] {
            assert!(!admit(&store, "a", "02", proof), "{proof:?}");
        }
        assert!(store.names().is_empty());
        assert_eq!(store.revoke("a").unwrap(), Revoked { agent: false, tokens: 0 });
        joined(&store, "a", "03");
        assert_eq!(standing(&store, "a", "03"), Standing::Good, "a new token lets it in again");
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        let (_folder, store) = store();
        for name in ["", "..", "../x", "a/b", ".a"] {
            let admitted = store.admit(name, good("01"), Proof::Certificate("00"), |_| {});
            assert!(matches!(admitted, Err(StoreError::Name(_))), "{name}");
            assert!(store.read(name).is_err() && store.revoke(name).is_err());
        }
    }
}
