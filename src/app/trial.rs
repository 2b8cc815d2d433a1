//! What `check-config` tries beyond reading the settings: certificates are parsed, the data directory and the store are
//! opened as far as that changes nothing.

use std::path::Path;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::{start, stores};
use crate::config::{Settings, StoreUrl, TlsFiles};
use crate::net::tls;

/// Everything that `serve` would fail at with these settings, as sentences.
pub fn faults(settings: &Settings) -> BoxFuture<'_, Vec<String>> {
    find(settings).boxed()
}

async fn find(settings: &Settings) -> Vec<String> {
    let mut faults = Vec::new();
    let authorities = settings
        .client_ca
        .as_deref()
        .map_or(Ok(()), tls::check_authorities);
    if let Err(error) = authorities {
        faults.push(format!(
            "--tls-client-ca: {error:#}",
            error = anyhow::Error::from(error)
        ));
    } else if let TlsFiles::Files { .. } = settings.tls
        && let Err(error) = start::tls(settings)
    {
        faults.push(format!("--tls-cert, --tls-key: {error:#}"));
    }
    if let Err(why) = takes_files(&settings.data_dir) {
        faults.push(format!("--data-dir {}: {why}", settings.data_dir.display()));
    }
    if let StoreUrl::Redis(_) = settings.store
        && let Err(error) = stores::try_out(settings).await
    {
        faults.push(format!("{error:#}"));
    }
    faults
}

/// A directory that is not there yet is made by `serve`: then the nearest one above it counts.
fn takes_files(dir: &Path) -> Result<(), String> {
    let dir = std::path::absolute(dir).map_err(|error| error.to_string())?;
    let mut nearest = dir.as_path();
    while !nearest.exists() {
        nearest = nearest.parent().ok_or("there is no such path")?;
    }
    if !nearest.is_dir() {
        return Err(format!("{} is no directory", nearest.display()));
    }
    match tempfile(nearest) {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("cannot write in {}: {error}", nearest.display())),
    }
}

fn tempfile(dir: &Path) -> std::io::Result<()> {
    let path = dir.join(format!(".answerback-check-{}", std::process::id()));
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(path)
}
