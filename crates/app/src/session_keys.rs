//! Secrets of our own making in the data folder; first of all the keys that session cookies are sealed with:
//! `session.keys`, one to a line.
//!
//! To change them, write a new line on top and reload: it seals from then on, and those below still open what
//! they sealed. Take a line away, and its sessions begin anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};
use tieline_http::{SESSION_KEY_BYTES, SessionKeys};

const NAME: &str = "session.keys";

/// More than enough for as many keys as are of use.
const FILE_BYTES_MAX: u64 = 4 * 1024;

/// The keys of `folder`; one is made if there is none.
///
/// # Errors
/// The file cannot be read or written, everybody may read it, or it holds something else; in one line that
/// says so.
pub(crate) fn load(folder: &Path) -> Result<SessionKeys, String> {
    let path = folder.join(NAME);
    let text = text(&path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Option<Vec<_>> = lines.map(key).collect();
    keys.and_then(|keys| SessionKeys::new(&keys)).ok_or_else(|| {
        let digits = SESSION_KEY_BYTES * 2;
        format!("{}: a line is not {digits} hexadecimal digits, or there is none", path.display())
    })
}

/// The secret in the file `name` of `folder`; one is made if there is none.
///
/// # Errors
/// As [`load`].
pub(crate) fn secret(folder: &Path, name: &str) -> Result<[u8; SESSION_KEY_BYTES], String> {
    let path = folder.join(name);
    let text = text(&path)?;
    key(text.trim()).ok_or_else(|| {
        format!("{}: does not hold {} hexadecimal digits", path.display(), SESSION_KEY_BYTES * 2)
    })
}

fn text(path: &Path) -> Result<String, String> {
    let told = |error: io::Error| format!("{}: {error}", path.display());
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => make(file).map_err(told),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(error) => Err(told(error)),
    }
}

fn make(mut file: File) -> io::Result<String> {
    let mut random = [0; SESSION_KEY_BYTES];
    // getrandom(2): up to 256 bytes come whole or not at all.
    getrandom(&mut random[..], GetRandomFlags::empty())?;
    let line: String = random.iter().map(|byte| format!("{byte:02x}")).chain(["\n".into()]).collect();
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    Ok(line)
}

fn read(path: &Path) -> Result<String, String> {
    let told = |error: io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(told)?;
    // Asked of the open file: a path could lead elsewhere by now.
    let mode = file.metadata().map_err(told)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(format!("{path} has mode {mode:04o}, so others may read it; write chmod 600 {path}"));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(told)?;
    Ok(text)
}

fn key(line: &str) -> Option<[u8; SESSION_KEY_BYTES]> {
    let digits = line.as_bytes();
    let fits = digits.len() == 2 * SESSION_KEY_BYTES && digits.iter().all(u8::is_ascii_hexdigit);
    let mut key = [0; SESSION_KEY_BYTES];
    for (byte, at) in key.iter_mut().zip((0..digits.len()).step_by(2)).take(if fits { usize::MAX } else { 0 })
    {
        *byte = u8::from_str_radix(line.get(at..at + 2)?, 16).ok()?;
    }
    fits.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn keys_are_made_once_and_kept_from_others() {
        let folder = tempfile::tempdir().unwrap();
        load(folder.path()).unwrap();
        let path = folder.path().join(NAME);
        let made = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        load(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), made);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load(folder.path()).unwrap_err().contains("chmod 600"));
    }

    #[test]
    fn a_file_of_something_else_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let two = format!("# since May\n{}\n\n{}\n", "ab".repeat(32), "CD".repeat(32));
        for (text, fits) in [(two.as_str(), true), ("", false), ("abc\n", false), (&"g0".repeat(32), false)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let loaded = load(folder.path());
            assert_eq!(loaded.is_ok(), fits, "{text}: {loaded:?}");
        }
    }
}
