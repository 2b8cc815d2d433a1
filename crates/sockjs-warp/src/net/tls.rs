//! TLS by rustls: certificates from PEM files, exchanged while running.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::pinned::{self, Pin};
pub use super::tls_error::TlsError;

/// Where the certificate and its key are.
#[derive(Clone, Debug)]
pub struct Settings {
    /// PEM, the server's certificate first, then its issuers.
    pub certificate: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// PEM: the authorities of clients' certificates, if clients are asked for one. Whoever shows none is served all the
    /// same, and known by [`ConnInfo::certified`](super::ConnInfo::certified).
    pub client_ca: Option<PathBuf>,
}

/// The TLS side of a listener.
#[derive(Clone)]
pub struct Tls {
    acceptor: Arc<ArcSwap<ServerConfig>>,
    current: Arc<Current>,
    settings: Settings,
    pin: Pin,
}

impl Tls {
    /// Reads the files that `settings` names.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(settings: Settings) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let (for_nodes, pin) = pinned::made()?;
        let current = Arc::new(Current {
            public: ArcSwap::from_pointee(load(&settings, &provider)?),
            for_nodes: Arc::new(for_nodes),
        });
        let config = config(&settings, &current, provider)?;
        Ok(Self {
            acceptor: Arc::new(ArcSwap::from_pointee(config)),
            current,
            settings,
            pin,
        })
    }

    /// By what other nodes know the certificate that this process shows them; see [`pinned`].
    #[must_use]
    pub const fn pin(&self) -> Pin {
        self.pin
    }

    /// Reads the files again; connections made from now on see what they hold. What was in use stays
    /// in use if they cannot be read.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let provider = Arc::new(ring::default_provider());
        let key = load(&self.settings, &provider)?;
        if self.settings.client_ca.is_some() {
            // Whoever was vouched for by an authority that is gone has no ticket any more, either.
            let config = config(&self.settings, &self.current, provider)?;
            self.acceptor.store(Arc::new(config));
        }
        self.current.public.store(Arc::new(key));
        Ok(())
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.acceptor.load_full())
            .accept(stream)
            .await
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Tls").field(&self.settings).finish()
    }
}

/// The certificates that handshakes are given now.
#[derive(Debug)]
struct Current {
    public: ArcSwap<CertifiedKey>,
    for_nodes: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello.server_name() == Some(pinned::NAME) {
            return Some(Arc::clone(&self.for_nodes));
        }
        Some(self.public.load_full())
    }
}

fn config(
    settings: &Settings,
    current: &Arc<Current>,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let verifier = match &settings.client_ca {
        Some(authorities) => verifier(authorities, &provider)?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(current) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Agents connect anew for every check-in; tickets spare both sides most of the handshake and,
    // unlike a session table, cost the server no memory.
    config.ticketer = ring::Ticketer::new()?;
    Ok(config)
}

/// That a file holds authorities of clients' certificates.
///
/// # Errors
/// [`TlsError`].
pub fn check_authorities(authorities: &Path) -> Result<(), TlsError> {
    verifier(authorities, &Arc::new(ring::default_provider())).map(|_| ())
}

/// Asks clients for a certificate, which they may have or not; a wrong one ends the handshake.
fn verifier(
    authorities: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(authorities)
        .and_then(Iterator::collect)
        .map_err(|source| TlsError::File {
            path: authorities.to_owned(),
            source,
        })?;
    if certificates.is_empty() {
        return Err(TlsError::Empty(authorities.to_owned()));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Authorities(authorities.to_owned(), error.to_string()))?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let built = builder.allow_unauthenticated().build();
    built.map_err(|error| TlsError::Authorities(authorities.to_owned(), error.to_string()))
}

fn load(settings: &Settings, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let fault = |path: &PathBuf| {
        let path = path.clone();
        |source| TlsError::File { path, source }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&settings.certificate)
        .and_then(Iterator::collect)
        .map_err(fault(&settings.certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(settings.certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(fault(&settings.key))?;
    Ok(CertifiedKey::from_der(chain, key, provider)?)
}

/// A certificate nobody has vouched for, for trials and tests, as PEM.
#[derive(Clone, Debug)]
pub struct SelfSigned {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// Makes a certificate for this machine: `localhost`, the loopback addresses, and `names` beside them
/// (host names or addresses).
///
/// # Errors
/// [`TlsError::Make`] if a name is not one.
pub fn self_signed(names: &[String]) -> Result<SelfSigned, TlsError> {
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut all: Vec<String> = local.into_iter().chain(names.iter().cloned()).collect();
    all.dedup();
    let mut params = CertificateParams::new(all)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "answerback self-signed");
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(SelfSigned {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(directory: &std::path::Path, pair: &SelfSigned) -> Settings {
        let settings = Settings {
            client_ca: None,
            certificate: directory.join("cert.pem"),
            key: directory.join("key.pem"),
        };
        std::fs::write(&settings.certificate, &pair.certificate).unwrap();
        std::fs::write(&settings.key, &pair.key).unwrap();
        settings
    }

    #[test]
    fn a_reload_exchanges_the_certificate_and_a_failed_one_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let settings = written(directory.path(), &self_signed(&[]).unwrap());
        let tls = Tls::new(settings.clone()).unwrap();
        let shown = || tls.current.public.load().cert[0].as_ref().to_vec();
        let before = shown();
        written(
            directory.path(),
            &self_signed(&["host.example".to_owned()]).unwrap(),
        );
        tls.reload().unwrap();
        let after = shown();
        assert_ne!(before, after);
        std::fs::write(&settings.key, &self_signed(&[]).unwrap().key).unwrap();
        assert!(matches!(tls.reload(), Err(TlsError::Unusable(_))));
        std::fs::write(&settings.certificate, "").unwrap();
        assert!(matches!(tls.reload(), Err(TlsError::Empty(_))));
        std::fs::remove_file(&settings.certificate).unwrap();
        assert!(matches!(tls.reload(), Err(TlsError::File { .. })));
        assert_eq!(shown(), after);
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        assert!(matches!(
            self_signed(&["h\u{f6}st".to_owned()]),
            Err(TlsError::Make(_))
        ));
    }
}
