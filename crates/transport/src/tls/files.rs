//! The files that TLS is made of: read once, and watched for changes.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::TlsError;
use super::peer::Fingerprint;

/// What was read, as it was, and what is remarkable about it.
#[derive(Default)]
pub(super) struct Files {
    read: Vec<Stamp>,
    warnings: Vec<String>,
}

/// A file as it was when it was read.
struct Stamp {
    path: PathBuf,
    version: Version,
    content: Fingerprint,
}

/// What the file system says without the file being read. The inode counts: a certificate may be replaced
/// within a tick of the clock by one of the same length.
#[derive(PartialEq, Eq)]
struct Version {
    modified: (i64, i64),
    length: u64,
    inode: u64,
}

/// No certificate and no list of revocations is larger, in bytes; a device would be.
const FILE_MAX: u64 = 64 << 20;

impl Files {
    pub(super) fn read(&mut self, path: &Path) -> Result<Vec<u8>, TlsError> {
        self.read_open(path).map(|(bytes, _)| bytes)
    }

    /// Reads a file that nobody else should.
    pub(super) fn read_secret(&mut self, path: &Path) -> Result<Vec<u8>, TlsError> {
        let (bytes, found) = self.read_open(path)?;
        if found.permissions().mode() & 0o007 != 0 {
            let path = path.display();
            self.warnings.push(format!("{path}: every user can reach this private key; chmod 600 {path}"));
        }
        Ok(bytes)
    }

    fn read_open(&mut self, path: &Path) -> Result<(Vec<u8>, Metadata), TlsError> {
        let (bytes, found) = read(path).map_err(|source| TlsError::Read { path: path.into(), source })?;
        let (version, content) = (Version::of(&found), Fingerprint::of(&bytes));
        self.read.push(Stamp { path: path.into(), version, content });
        Ok((bytes, found))
    }

    /// Whether any file no longer holds what was read. Costs a `stat` each, and a read where that differs.
    pub(super) fn changed(&self) -> bool {
        self.read.iter().any(Stamp::changed)
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.read.iter().map(|stamp| &stamp.path)).finish()
    }
}

impl Stamp {
    fn changed(&self) -> bool {
        let same = |found: Metadata| Version::of(&found) == self.version;
        if std::fs::metadata(&self.path).is_ok_and(same) {
            return false;
        }
        // Gone counts as changed: loading anew says so in words.
        !read(&self.path).is_ok_and(|(bytes, _)| Fingerprint::of(&bytes) == self.content)
    }
}

impl Version {
    fn of(found: &Metadata) -> Version {
        let modified = (found.mtime(), found.mtime_nsec());
        Version { modified, length: found.len(), inode: found.ino() }
    }
}

fn read(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    let file = File::open(path)?;
    let found = file.metadata()?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok((bytes, found))
}
