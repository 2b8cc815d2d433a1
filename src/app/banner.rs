//! What a start prints: where it listens, the secrets it made up, and a line to copy.

use std::net::SocketAddr;

use super::start::{Parts, SELF_SIGNED, certificate_names};
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
#[expect(clippy::print_stdout, reason = "this is what the operator reads")]
pub(super) fn print(url: &str, settings: &Settings, parts: &Parts) {
    println!("Answerback is listening on {url}");
    println!("  store            {}", parts.store_text);
    println!("  node             {}", parts.node);
    if settings.demo > 0 {
        println!(
            "  DEMO             {} simulated hosts enroll and answer; not real machines",
            settings.demo
        );
    }
    if let Some(first) = &parts.first_start {
        println!("  first start      these are shown once:");
        println!("    admin          {}", first.email);
        if let Some(password) = &first.password {
            println!("    password       {password}");
        }
        if let Some(token) = &first.token {
            println!("    API token      {token}");
        }
    }
    if let Some(secret) = &parts.made_secret {
        println!("    enroll secret  {secret}");
    }
    if let TlsFiles::SelfSigned(names) = &settings.tls {
        print_certificate(names, url, settings);
    }
    println!(
        "\nAsk all hosts something:\n\n  {}\n",
        query_line(url, settings, parts)
    );
}

/// Whom agents may call the broker, and the flags with which they trust it: another name would fail at every handshake.
#[expect(clippy::print_stdout, reason = "this is what the operator reads")]
fn print_certificate(given: &[String], url: &str, settings: &Settings) {
    let names = certificate_names(given);
    let file = settings.data_dir.join(SELF_SIGNED);
    println!("  certificate      self-signed, in {}", file.display());
    println!(
        "                   for {}, localhost, 127.0.0.1, ::1 (others: --tls-names NAME,...)",
        names.join(", ")
    );
    let port = url.rsplit(':').next().unwrap_or("443");
    let name = names.first().map_or("localhost", String::as_str);
    println!(
        "  osqueryd         --tls_hostname={name}:{port} --tls_server_certs=COPY_OF_THE_CERTIFICATE"
    );
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
