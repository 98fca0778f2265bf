//! What a conversation inside TLS can be bound to: the server's certificate (RFC 5929 §4.1).

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The hash of a server's certificate, by the function that its signature uses; `None` where that is not
/// known to everybody, so that both sides would have to guess.
pub(super) fn end_point(der: &[u8]) -> Option<Box<[u8]>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let function = function(&certificate.signature_algorithm.algorithm.to_id_string())?;
    Some(digest(function, der).as_ref().into())
}

/// The hash function of a signature, by its object identifier. Of MD5 and SHA-1 the standard makes SHA-256.
fn function(signature: &str) -> Option<&'static Algorithm> {
    Some(match signature {
        // md5WithRSAEncryption, sha1WithRSAEncryption, ecdsa-with-SHA1
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" => &SHA256,
        // sha256WithRSAEncryption, ecdsa-with-SHA256, and so on
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => &SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::end_point;

    #[test]
    fn the_function_is_that_of_the_signature() {
        let signed = |algorithm| {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let der = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
            end_point(der.der()).map(|hash| hash.len())
        };
        assert_eq!(signed(&rcgen::PKCS_ECDSA_P256_SHA256), Some(32));
        assert_eq!(signed(&rcgen::PKCS_ECDSA_P384_SHA384), Some(48));
        assert_eq!(signed(&rcgen::PKCS_ED25519), None);
        assert_eq!(end_point(b"no certificate"), None);
    }
}
