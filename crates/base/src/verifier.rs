//! What is kept of a password: enough to know who knows it, too little to log in as them.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};

/// What is kept of a password, in the form in which PostgreSQL keeps it (`pg_authid.rolpassword`).
#[derive(Clone, PartialEq, Eq)]
pub enum Verifier {
    /// `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY`.
    Scram(ScramVerifier),
    /// `md5` and 32 hexadecimal digits: MD5 of the password and the user's name. Who holds it can log in with
    /// it.
    Md5([u8; 16]),
}

/// What a server keeps for SCRAM-SHA-256 (RFC 5802 §3, RFC 7677 §3).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ScramVerifier {
    /// How often the password is hashed: 1 to [`SCRAM_ITERATIONS_MAX`].
    pub iterations: u32,
    /// What is hashed with it: 1 to [`SCRAM_SALT_MAX`] bytes.
    pub salt: Box<[u8]>,
    /// The hash of the key that a client proves to have.
    pub stored_key: [u8; 32],
    /// The key by which the server proves that it knows the client.
    pub server_key: [u8; 32],
}

/// The most that a password is hashed; every client has to do as much at each login.
pub const SCRAM_ITERATIONS_MAX: u32 = 10_000_000;

/// The longest salt in bytes.
pub const SCRAM_SALT_MAX: usize = 256;

/// Text that is no verifier. Says nothing of the text, which may be a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VerifierError {
    /// It begins as none does.
    #[error("a verifier begins with \"SCRAM-SHA-256$\" or \"md5\", as in pg_authid.rolpassword")]
    Unknown,
    /// It begins with `md5` and goes on otherwise.
    #[error("\"md5\" is followed by 32 hexadecimal digits")]
    Md5,
    /// It begins as one of SCRAM and has other parts.
    #[error(
        "a SCRAM verifier is SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY, the last three in Base64"
    )]
    Scram,
    /// It asks for more or less hashing than is sound.
    #[error("a SCRAM verifier has 1 to {SCRAM_ITERATIONS_MAX} iterations")]
    Iterations,
}

const SCRAM: &str = "SCRAM-SHA-256$";

impl FromStr for Verifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        if let Some(rest) = text.strip_prefix(SCRAM) {
            return scram(rest).map(Verifier::Scram);
        }
        let digits = text.strip_prefix("md5").ok_or(VerifierError::Unknown)?;
        let hash = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| VerifierError::Md5)?;
        hash.try_into().map(Verifier::Md5).map_err(|_| VerifierError::Md5)
    }
}

fn scram(rest: &str) -> Result<ScramVerifier, VerifierError> {
    let (hashing, keys) = rest.split_once('$').ok_or(VerifierError::Scram)?;
    let (iterations, salt) = hashing.split_once(':').ok_or(VerifierError::Scram)?;
    let (stored, server) = keys.split_once(':').ok_or(VerifierError::Scram)?;
    let decoded = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| VerifierError::Scram);
    let key = |text| decoded(text)?.try_into().map_err(|_| VerifierError::Scram);
    let salt = decoded(salt)?;
    if !(1..=SCRAM_SALT_MAX).contains(&salt.len()) || !iterations.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(VerifierError::Scram);
    }
    let iterations = iterations.parse().unwrap_or(0);
    if !(1..=SCRAM_ITERATIONS_MAX).contains(&iterations) {
        return Err(VerifierError::Iterations);
    }
    Ok(ScramVerifier { iterations, salt: salt.into(), stored_key: key(stored)?, server_key: key(server)? })
}

impl Verifier {
    /// As it stands in a file. No `Display`: it must not come into a log by oversight.
    pub fn to_text(&self) -> String {
        match self {
            Verifier::Md5(hash) => format!("md5{}", HEXLOWER.encode(hash)),
            Verifier::Scram(it) => {
                let [salt, stored, server] =
                    [&it.salt[..], &it.stored_key, &it.server_key].map(|bytes| BASE64.encode(bytes));
                format!("{SCRAM}{}:{salt}${stored}:{server}", it.iterations)
            }
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verifier::Scram(scram) => fmt::Debug::fmt(scram, f),
            Verifier::Md5(_) => f.write_str("Md5(…)"),
        }
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramVerifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 7677 §3: user "user", password "pencil".
    const RFC_7677: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                            WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                            wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn the_form_of_postgresql_is_read_and_written() {
        let md5 = format!("md5{}", "0a".repeat(16));
        for text in [RFC_7677, &md5] {
            assert_eq!(text.parse::<Verifier>().unwrap().to_text(), text);
        }
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let scram = format!("{:?}", RFC_7677.parse::<Verifier>().unwrap());
        assert_eq!(scram, "ScramVerifier { iterations: 4096, .. }");
        assert_eq!(format!("{:?}", Verifier::Md5([7; 16])), "Md5(…)");
    }

    #[test]
    fn what_is_none_is_refused_for_what_is_wrong_with_it() {
        let cases = [
            ("", VerifierError::Unknown),
            ("hunter2", VerifierError::Unknown),
            ("scram-sha-256$1:AA==$AA==:AA==", VerifierError::Unknown),
            ("md5", VerifierError::Md5),
            ("md5 0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0", VerifierError::Md5),
            ("SCRAM-SHA-256$4096:", VerifierError::Scram),
            ("SCRAM-SHA-256$4096:AA==$AA==:AA==", VerifierError::Scram),
            (&RFC_7677.replace("4096", "+4096"), VerifierError::Scram),
            (&RFC_7677.replace("4096", "0"), VerifierError::Iterations),
            (&RFC_7677.replace("4096", "99999999999"), VerifierError::Iterations),
            (&RFC_7677.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""), VerifierError::Scram),
            (&RFC_7677[..RFC_7677.len() - 1], VerifierError::Scram),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Verifier>().unwrap_err(), error, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            iterations in 1..=SCRAM_ITERATIONS_MAX,
            salt in proptest::collection::vec(any::<u8>(), 1..64),
            stored_key: [u8; 32],
            server_key: [u8; 32],
        ) {
            let it = Verifier::Scram(ScramVerifier { iterations, salt: salt.into(), stored_key, server_key });
            prop_assert_eq!(it.to_text().parse::<Verifier>().unwrap(), it);
        }
    }
}
