//! CRC-32C (Castagnoli), as §2.2.3 wants it: RFC 9260 Appendix A, once RFC 4960 Appendix B.

/// The polynomial 0x1EDC6F41, its bits reversed.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// What each byte does to the register.
const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut register = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            register = if register & 1 == 1 { (register >> 1) ^ POLYNOMIAL } else { register >> 1 };
            bit += 1;
        }
        table[byte] = register;
        byte += 1;
    }
    table
}

/// The checksum of `bytes`.
pub(super) fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let step =
        |register: u32, byte: &u8| (register >> 8) ^ TABLE[((register ^ u32::from(*byte)) & 0xff) as usize];
    !bytes.fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn matches_the_published_vectors() {
        assert_eq!(crc32c(b"123456789".iter()), 0xE306_9283); // the customary check value
        assert_eq!(crc32c([0u8; 32].iter()), 0x8A91_36AA); // RFC 3720 §B.4
        assert_eq!(crc32c([0xffu8; 32].iter()), 0x62A8_AB43); // RFC 3720 §B.4
    }
}
