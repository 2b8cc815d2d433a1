//! Origins as operators type them, and as browsers send them.

/// An origin in the form in which browsers send it: lower case, without the scheme's own port.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub(super) fn normalised(text: &str) -> Result<String, String> {
    let text = text.trim();
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!(
            "`{text}` has no scheme: write https://{text} or http://{text}"
        ));
    };
    let scheme = scheme.to_ascii_lowercase();
    if !["http", "https"].contains(&scheme.as_str()) {
        return Err(format!("`{text}` is neither an http nor an https origin"));
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest).to_ascii_lowercase();
    let authority: http::uri::Authority = authority.parse().map_err(|_| {
        format!("`{text}` is no origin: write scheme://host or scheme://host:port, without a path")
    })?;
    let behind_host = authority.as_str().strip_prefix(authority.host());
    // Nothing, or a port that is one: no user in front, and no colon alone.
    let port_is_good =
        behind_host.is_some_and(|port| port.is_empty() || authority.port_u16().is_some());
    if !port_is_good {
        return Err(format!(
            "`{text}` is no origin: write scheme://host or scheme://host:port"
        ));
    }
    let default = if scheme == "https" { 443 } else { 80 };
    Ok(match authority.port_u16().filter(|port| *port != default) {
        Some(port) => format!("{scheme}://{}:{port}", authority.host()),
        None => format!("{scheme}://{}", authority.host()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_send_them_or_refused() {
        for (typed, sent) in [
            ("https://Console.Example/", "https://console.example"),
            ("HTTPS://console.example:443", "https://console.example"),
            ("http://console.example:80/", "http://console.example"),
            ("http://console.example:8080", "http://console.example:8080"),
            (" https://[::1]:8443 ", "https://[::1]:8443"),
        ] {
            assert_eq!(normalised(typed).as_deref(), Ok(sent));
        }
        for typed in [
            "console.example",
            "null",
            "*",
            "ftp://a",
            "https://a/path",
            "https://",
            "https://a b",
            "https://u@a",
            "https://a:",
            "https://a:99999",
        ] {
            assert!(normalised(typed).is_err(), "{typed}");
        }
    }
}
