//! TLS between nodes: a key made at each start, known by its fingerprint and vouched for by nobody else.
//!
//! A node's public certificate may be self-signed, bear a name that other nodes do not use for it, or be exchanged
//! while it runs. So a client that asks for [`NAME`] is shown another certificate, whose fingerprint the node has
//! told the others beforehand; the client takes exactly that one.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

use super::tls_error::TlsError;

/// The server name by which nodes ask each other for their pinned certificates. `invalid` is never resolved
/// (RFC 6761, 6.4), so that no public certificate can be meant.
pub const NAME: &str = "node.answerback.invalid";

/// A certificate's SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

/// A fresh certificate for [`NAME`] with its key.
pub(super) fn made() -> Result<(CertifiedKey, Pin), TlsError> {
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(vec![NAME.to_owned()])?;
    let certificate = params.self_signed(&key)?.der().clone();
    let pin = Pin::of(&certificate);
    let unreadable = |_| Error::General("a key that was just made cannot be read".to_owned());
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).map_err(unreadable)?;
    let key = CertifiedKey::from_der(vec![certificate], key, &ring::default_provider())?;
    Ok((key, pin))
}

/// A client's settings that take the certificate with this pin and no other; without a pin, those that the web's
/// authorities vouch for.
///
/// # Errors
/// If the cryptography has none of the protocol's versions.
pub fn client(pin: Option<Pin>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let Some(pin) = pin else {
        let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(builder.with_root_certificates(roots).with_no_client_auth());
    };
    let verifier = Arc::new(Pinned { pin, provider });
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// Takes one certificate, whatever it says of itself.
#[derive(Debug)]
struct Pinned {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Fingerprints are no secrets: nothing is gained by comparing them in constant time.
        if Pin::of(certificate) == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(
            rustls::CertificateError::ApplicationVerificationFailure,
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(pin: Pin, certificate: &CertificateDer<'_>) -> bool {
        let provider = Arc::new(ring::default_provider());
        let name = ServerName::try_from(NAME).unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::ZERO);
        Pinned { pin, provider }
            .verify_server_cert(certificate, &[], &name, &[], now)
            .is_ok()
    }

    #[test]
    fn only_the_certificate_with_the_pin_is_taken() {
        let (one, pin) = made().unwrap();
        let (other, _) = made().unwrap();
        assert!(verdict(pin, &one.cert[0]));
        assert!(!verdict(pin, &other.cert[0]));
    }
}
