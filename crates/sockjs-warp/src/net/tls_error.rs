//! Why TLS could not be set up.

use std::path::PathBuf;

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read or is not PEM.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A certificate file without a certificate.
    #[error("no certificate in {0}")]
    Empty(PathBuf),
    /// The two do not belong together, or are of a kind that is not supported.
    #[error("certificate and key cannot be used")]
    Unusable(#[from] rustls::Error),
    /// Certificates that vouch for nobody.
    #[error("the authorities in {0} cannot be used: {1}")]
    Authorities(PathBuf, String),
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}
