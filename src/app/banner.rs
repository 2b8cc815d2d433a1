//! What a start prints: where it listens, the secrets it made up, and a line to copy.

use std::io::Write as _;
use std::net::SocketAddr;

use super::start::{Parts, SELF_SIGNED, certificate_names};
use crate::auth::FirstStart;
use crate::config::{Settings, TlsFiles};

/// The broker's address as a URL that works on this machine.
pub(super) fn url(address: SocketAddr, secure: bool) -> String {
    let scheme = if secure { "https" } else { "http" };
    if address.ip().is_unspecified() {
        format!("{scheme}://localhost:{}", address.port())
    } else {
        format!("{scheme}://{address}")
    }
}

/// Prints it. Secrets appear only when they were made up just now.
pub(super) fn print(url: &str, settings: &Settings, parts: &Parts) {
    let mut told = format!("Answerback is listening on {url}\n");
    told += &format!("  store            {}\n", parts.store_text);
    told += &format!("  node             {}\n", parts.node);
    if settings.demo > 0 {
        told += &format!(
            "  DEMO             {} simulated hosts enroll and answer; not real machines\n",
            settings.demo
        );
    }
    if let Some(first) = &parts.first_start {
        told += "  first start      these are shown at this start only:\n";
        told += &first_start(first);
    }
    if let Some(secret) = &parts.made_secret {
        told += &format!("    enroll secret  {secret}\n");
    }
    if let TlsFiles::SelfSigned(names) = &settings.tls {
        told += &certificate(names, url, settings);
    }
    let line = query_line(url, settings, parts);
    told += &format!("\nAsk all hosts something:\n\n  {line}\n\n");
    write(&told);
}

/// Prints what is about to be made: whatever happens then, somebody has read it.
pub(super) fn announce(first: &FirstStart) {
    if first.password.is_some() || first.token.is_some() {
        let told = first_start(first);
        write(&format!("Making the first admin:\n{told}\n"));
    }
}

fn first_start(first: &FirstStart) -> String {
    let mut told = format!("    admin          {}\n", first.email);
    if let Some(password) = &first.password {
        told += &format!("    password       {password}\n");
    }
    if let Some(token) = &first.token {
        told += &format!("    API token      {token}\n");
    }
    told
}

/// In one piece, to the operator; a start does not fail because nobody reads.
fn write(told: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(told.as_bytes()).and_then(|()| out.flush());
}

/// Whom agents may call the broker, and the flags with which they trust it: another name would fail at every handshake.
fn certificate(given: &[String], url: &str, settings: &Settings) -> String {
    let names = certificate_names(given);
    let file = settings.data_dir.join(SELF_SIGNED);
    let port = url.rsplit(':').next().unwrap_or("443");
    let name = names.first().map_or("localhost", String::as_str);
    format!(
        "  certificate      self-signed, in {}\n                   for {}, localhost, 127.0.0.1, ::1 (others: \
         --tls-names NAME,...)\n  osqueryd         --tls_hostname={name}:{port} \
         --tls_server_certs=COPY_OF_THE_CERTIFICATE\n",
        file.display(),
        names.join(", "),
    )
}

fn query_line(url: &str, settings: &Settings, parts: &Parts) -> String {
    let token = parts
        .first_start
        .as_ref()
        .and_then(|first| first.token.as_deref())
        .unwrap_or("<API token>");
    let mut line = format!("ANSWERBACK_API_TOKEN={token} {} query", program());
    if url != "http://127.0.0.1:8080" {
        line.push_str(&format!(" --url {url}"));
    }
    if matches!(settings.tls, TlsFiles::SelfSigned(_)) {
        line.push_str(" --tls-skip-verify");
    }
    line.push_str(r#" --labels "All Hosts" "select * from os_version""#);
    line
}

/// This program as it would be typed here.
fn program() -> String {
    let (Ok(program), Ok(here)) = (std::env::current_exe(), std::env::current_dir()) else {
        return "answerback".to_owned();
    };
    program
        .strip_prefix(&here)
        .unwrap_or(&program)
        .display()
        .to_string()
}
