//! Passwords by MD5: for clients and servers that know nothing better.

use data_encoding::HEXLOWER;
use md5::{Digest, Md5};

/// What is kept of a password: MD5 of it and of the user's name.
pub fn hash(user: &[u8], password: &[u8]) -> [u8; 16] {
    Md5::new().chain_update(password).chain_update(user).finalize().into()
}

/// What proves the knowledge of `hash`, with a salt that is another one at each login.
pub fn answer(hash: &[u8; 16], salt: [u8; 4]) -> String {
    let salted = Md5::new().chain_update(HEXLOWER.encode(hash)).chain_update(salt).finalize();
    format!("md5{}", HEXLOWER.encode(&salted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_postgresql_makes_of_it() {
        // select 'md5' || md5('pencil' || 'user'); then md5 of that and a salt of "abcd".
        let kept = hash(b"user", b"pencil");
        assert_eq!(HEXLOWER.encode(&kept), "20c46e3762c864548e296b33c3406aa9");
        assert_eq!(answer(&kept, *b"abcd"), "md5d621238dc9a10c6c869b264c13379ee7");
    }
}
