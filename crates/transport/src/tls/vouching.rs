//! Clients for whom one of two authorities vouches, each with its own revocation lists.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// Whose word it is that a client is who he says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Voucher {
    /// Of those whom the listener asks for.
    House,
    /// Of its guests.
    Guests,
}

/// Both: what the first does not know, the other may.
#[derive(Debug)]
pub(super) struct Vouching {
    house: Arc<dyn ClientCertVerifier>,
    guests: Arc<dyn ClientCertVerifier>,
    hints: Vec<DistinguishedName>,
}

impl Vouching {
    pub(super) fn new(house: Arc<dyn ClientCertVerifier>, guests: Arc<dyn ClientCertVerifier>) -> Self {
        let hints = [house.root_hint_subjects(), guests.root_hint_subjects()].concat();
        Self { house, guests, hints }
    }

    /// Who vouches for the holder of what was shown, as of `now`.
    pub(super) fn judge(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Voucher, Error> {
        match self.house.verify_client_cert(own, others, now) {
            Ok(_) => Ok(Voucher::House),
            Err(Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => self.guests.verify_client_cert(own, others, now).map(|_| Voucher::Guests),
            // Whom the house knows, and refuses, has nobody else to speak for him.
            Err(error) => Err(error),
        }
    }
}

impl ClientCertVerifier for Vouching {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.house.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(own, others, now).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.house.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.house.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.house.supported_verify_schemes()
    }
}
