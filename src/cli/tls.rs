//! Whom the command line's clients trust: the web's authorities, a given one, or anybody.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Whose certificates are taken.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// The authorities that browsers trust.
    #[default]
    Web,
    /// The authorities in a PEM file.
    File(PathBuf),
    /// Anybody's: for servers on this machine, and for trying out.
    Anybody,
}

/// A client's TLS settings.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
pub fn client(trust: &Trust) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    let roots = match trust {
        Trust::Anybody => {
            let anybody = Arc::new(AnyCertificate(ring::default_provider()));
            return Ok(builder
                .dangerous()
                .with_custom_certificate_verifier(anybody)
                .with_no_client_auth());
        }
        Trust::Web => RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Trust::File(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in
                CertificateDer::pem_file_iter(path).with_context(|| path.display().to_string())?
            {
                roots.add(certificate?)?;
            }
            anyhow::ensure!(!roots.is_empty(), "{}: no certificate", path.display());
            roots
        }
    };
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Takes any certificate for valid; signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
