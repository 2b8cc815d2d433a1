//! The server under test: where it is, and how to connect to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::stream::Stream;

/// The server and the way to it; shared by everything that connects.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What stands before every path; empty or `/something`.
    pub(crate) base: String,
    /// The API's version in paths: `latest`, `v1`, `2022-04`.
    pub(crate) version: String,
    address: SocketAddr,
    tls: Option<Tls>,
    sources: Vec<IpAddr>,
    next_source: AtomicUsize,
}

struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?})", self.name)
    }
}

/// How certificates are judged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trust<'a> {
    /// By the public authorities.
    Public,
    /// By the authorities in this PEM file.
    File(&'a Path),
    /// Not at all.
    Anyone,
}

/// A URL taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    tls: bool,
    host: String,
    port: u16,
    base: String,
}

impl Target {
    /// Resolves `url` (http, https, ws or wss).
    pub(crate) async fn resolve(url: &str, trust: Trust<'_>) -> anyhow::Result<Self> {
        let parts = parts(url)?;
        let bare = parts.host.trim_matches(|c| matches!(c, '[' | ']'));
        let mut found: Vec<SocketAddr> = tokio::net::lookup_host((bare, parts.port))
            .await
            .with_context(|| format!("cannot resolve {}", parts.host))?
            .collect();
        // Addresses to connect from are IPv4 ones; prefer what they can reach.
        found.sort_by_key(|address| !address.is_ipv4());
        let address = *found.first().context("the name has no address")?;
        let tls = if parts.tls {
            let name = ServerName::try_from(bare.to_owned())?;
            Some(Tls {
                connector: connector(trust)?,
                name,
            })
        } else {
            None
        };
        Ok(Self {
            host: parts.host,
            port: parts.port,
            base: parts.base,
            version: "latest".to_owned(),
            address,
            tls,
            sources: Vec::new(),
            next_source: AtomicUsize::new(0),
        })
    }

    /// Connects from these addresses in turn.
    pub(crate) fn connecting_from(mut self, sources: Vec<IpAddr>) -> Self {
        self.sources = sources;
        self
    }

    /// Uses this version of the API.
    pub(crate) fn speaking(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// Opens a connection, TLS handshake included.
    pub(crate) async fn connect(&self) -> std::io::Result<Stream> {
        let socket = if self.address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if !self.sources.is_empty() {
            let turn = self.next_source.fetch_add(1, Ordering::Relaxed);
            let source = self.sources[turn % self.sources.len()];
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Stream::Plain(stream)),
            Some(tls) => {
                let stream = tls.connector.connect(tls.name.clone(), stream).await?;
                Ok(Stream::Tls(Box::new(stream)))
            }
        }
    }

    /// A whole request. `headers` are complete lines, each with its CRLF.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256 + headers.len() + body.len());
        self.write_request(method, path, headers, body, &mut bytes);
        bytes
    }

    /// Appends a whole request to `out`.
    pub(crate) fn write_request(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
        out: &mut Vec<u8>,
    ) {
        use std::io::Write;
        let (base, host, port) = (&self.base, &self.host, self.port);
        // Writing into a vector cannot fail.
        let _ = write!(
            out,
            "{method} {base}{path} HTTP/1.1\r\nHost: {host}:{port}\r\n{headers}"
        );
        if method != "GET" {
            let _ = write!(out, "Content-Length: {}\r\n", body.len());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
    }
}

fn parts(url: &str) -> anyhow::Result<Parts> {
    let (scheme, rest) = url
        .split_once("://")
        .with_context(|| format!("{url}: not a URL"))?;
    let tls = match scheme {
        "http" | "ws" => false,
        "https" | "wss" => true,
        _ => bail!("{url}: not an http, https, ws or wss URL"),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let colon = authority.rfind(':').filter(|at| {
        // The colons of an IPv6 address stand inside brackets.
        !authority[*at..].contains(']')
    });
    let (host, port) = match colon {
        Some(at) => (&authority[..at], authority[at + 1..].parse().ok()),
        None => (authority, Some(if tls { 443 } else { 80 })),
    };
    let port = port.with_context(|| format!("{url}: bad port"))?;
    if host.is_empty() || host.contains('@') {
        bail!("{url}: bad host");
    }
    let path = path.trim_end_matches('/');
    let base = if path.is_empty() {
        String::new()
    } else {
        format!("/{path}")
    };
    Ok(Parts {
        tls,
        host: host.to_owned(),
        port,
        base,
    })
}

/// Reads `127.0.0.2` or `127.0.0.2-127.0.0.9`.
pub(crate) fn sources(text: &str) -> Result<Vec<IpAddr>, String> {
    let one = |text: &str| {
        let address: Result<Ipv4Addr, _> = text.trim().parse();
        address.map_err(|_| format!("{text}: not an IPv4 address"))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (u32::from(one(first)?), u32::from(one(last)?));
    if first > last || last - first > 4096 {
        return Err(format!("{text}: not a range of at most 4096 addresses"));
    }
    let range = (first..=last).map(|bits| IpAddr::V4(Ipv4Addr::from(bits)));
    Ok(range.collect())
}

fn connector(trust: Trust<'_>) -> anyhow::Result<TlsConnector> {
    let provider = ring::default_provider();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_safe_default_protocol_versions()?;
    let config = match trust {
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
        Trust::Public => {
            let mut roots = RootCertStore::empty();
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Trust::File(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(path)? {
                roots.add(certificate?)?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// `--tls-skip-verify`: any certificate will do, but signatures must still be right.
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
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_all_four_schemes_are_taken_apart() {
        let of = |url: &str| {
            let parts = parts(url).unwrap();
            (parts.tls, parts.host, parts.port, parts.base)
        };
        let plain = |host: &str, port, base: &str| (false, host.to_owned(), port, base.to_owned());
        assert_eq!(of("http://a:8080"), plain("a", 8080, ""));
        assert_eq!(of("ws://a/"), plain("a", 80, ""));
        assert_eq!(of("http://[::1]:81/x/y/"), plain("[::1]", 81, "/x/y"));
        assert_eq!(of("http://[::1]"), plain("[::1]", 80, ""));
        assert_eq!(
            of("wss://b.test"),
            (true, "b.test".to_owned(), 443, String::new())
        );
        for bad in [
            "",
            "a:80",
            "ftp://a",
            "http://",
            "http://a:port",
            "http://u@a",
        ] {
            assert!(parts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_of_sources_are_read() {
        assert_eq!(sources("127.0.0.2").unwrap().len(), 1);
        let range = sources("127.0.0.254-127.0.1.1").unwrap();
        assert_eq!(range.len(), 4);
        assert_eq!(range[2].to_string(), "127.0.1.0");
        assert!(sources("127.0.0.9-127.0.0.2").is_err());
        assert!(sources("localhost").is_err());
    }
}
