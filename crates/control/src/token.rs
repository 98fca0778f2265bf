//! The admin token: made once, kept in a file that its owner alone can read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::rand::{GetRandomFlags, getrandom};
use tieline_base::Secret;

/// The token's file in the data folder.
pub const TOKEN_NAME: &str = "admin.token";

/// Why there is no token to be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The folder or the file cannot be made or read.
    #[error("{}: {source}; `server.data` must be a folder that this user can write to", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// Its permissions let others read it.
    #[error(
        "{} can be read by others (mode {mode:04o}); remove it for a new one, or `chmod 600` it \
         if nobody did",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold a token.
    #[error("{} holds no token; remove it, and a new one is made at the next start", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// The token in the folder `data`. Both are made if they are missing: the folder with mode 0700, the token
/// from 32 bytes of the kernel's randomness, in a file with mode 0600.
///
/// # Errors
/// [`TokenError`], in one line that says what to do.
pub fn admin_token(data: &Path) -> Result<Secret, TokenError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| TokenError::Io { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(failed(data))?;
    let path = data.join(TOKEN_NAME);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(file) => make(file).map_err(failed(&path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(&path),
        Err(error) => Err(failed(&path)(error)),
    }
}

fn make(mut file: File) -> io::Result<Secret> {
    let mut random = [0; TOKEN_BYTES];
    // getrandom(2): up to 256 bytes come whole or not at all.
    getrandom(&mut random[..], GetRandomFlags::empty())?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    Ok(Secret::new(token))
}

const TOKEN_BYTES: usize = 32;

fn read(path: &Path) -> Result<Secret, TokenError> {
    let failed = |source| TokenError::Io { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    // Asked of the open file: a path could lead elsewhere by now.
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(TokenError::Exposed { path: path.into(), mode });
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    let token = text.trim();
    // An operator may put a token of his own there, but none that can be guessed.
    if token.len() < TOKEN_BYTES || token.contains(char::is_whitespace) {
        return Err(TokenError::Empty { path: path.into() });
    }
    Ok(Secret::new(token.into()))
}

const FILE_BYTES_MAX: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_token_is_private_random_and_the_same_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("deep/data");
        let made = admin_token(&data).unwrap();
        assert_eq!((mode(&data), mode(&data.join(TOKEN_NAME))), (0o700, 0o600));
        assert!(admin_token(&data).unwrap().matches(made.reveal()));
        assert_eq!(made.reveal().len(), 64);
        let other = admin_token(&folder.path().join("other")).unwrap();
        assert!(!other.matches(made.reveal()));
    }

    #[test]
    fn a_token_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        admin_token(folder.path()).unwrap();
        let path = folder.path().join(TOKEN_NAME);
        for exposed in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(exposed)).unwrap();
            let error = admin_token(folder.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("(mode {exposed:04o})")) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_file_without_a_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        admin_token(folder.path()).unwrap();
        for text in ["", "\n", "short", "two words that are long enough to be a token"] {
            std::fs::write(folder.path().join(TOKEN_NAME), text).unwrap();
            assert!(matches!(admin_token(folder.path()), Err(TokenError::Empty { .. })), "{text:?}");
        }
    }
}
