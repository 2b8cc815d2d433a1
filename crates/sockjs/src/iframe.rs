//! The page for transports that need an iframe, its policy, and the script that it loads.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::settings::Origins;

/// The inside of the iframe transports. With a script of our own no third party's code runs in this origin, and the page
/// works without the internet.
pub const IFRAME_SCRIPT: &str = include_str!("iframe.js");

/// What the page runs itself, to the letter of the protocol.
const INLINE: &str = "\n    document.domain = document.domain;\n    SockJS.bootstrap_iframe();\n  ";

/// The iframe page, its entity tag and its policy. They depend on the settings alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IframePage {
    /// HTML.
    pub body: String,
    /// A quoted string, derived from the body.
    pub etag: String,
    /// The content security policy: its own script, requests to this server, and whom the origins let embed it.
    pub policy: String,
}

impl IframePage {
    /// The page that loads the client library from `sockjs_url`, or this server's own script.
    #[must_use]
    pub fn new(sockjs_url: Option<&str>, origins: &Origins) -> Self {
        let parts = sockjs_url.map(|url| url.split_once("#sha").unwrap_or((url, "")));
        let (url, integrity) = parts.unwrap_or(("iframe.js", ""));
        let integrity = match integrity {
            "" => String::new(),
            hash => {
                let hash = escape_attribute(hash);
                format!(" integrity=\"sha{hash}\" crossorigin=\"anonymous\"")
            }
        };
        let script = escape_attribute(url);
        let lines = [
            "<!DOCTYPE html>",
            "<html>",
            "<head>",
            "  <meta http-equiv=\"X-UA-Compatible\" content=\"IE=edge\" />",
            "  <meta http-equiv=\"Content-Type\" content=\"text/html; charset=UTF-8\" />",
            &format!("  <script src=\"{script}\"{integrity}></script>"),
            &format!("  <script>{INLINE}</script>"),
            "</head>",
            "<body>",
            "  <h2>Don't panic!</h2>",
            "  <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>",
            "</body>",
            "</html>",
        ];
        let body = lines.join("\n");
        Self {
            etag: etag(&body),
            policy: policy(url, sockjs_url.is_some(), origins),
            body,
        }
    }
}

/// A foreign library has a transport that opens iframes of this server; our own script has not.
fn policy(url: &str, is_foreign: bool, origins: &Origins) -> String {
    let inline = STANDARD.encode(Sha256::digest(INLINE));
    let source = if url.contains("//") {
        // What would end a source or a directive.
        let escape = |text: String, (from, to): (&str, &str)| text.replace(from, to);
        let special = [(";", "%3B"), (",", "%2C"), (" ", "%20"), ("'", "%27")];
        special.into_iter().fold(url.to_owned(), escape)
    } else {
        "'self'".to_owned()
    };
    let frames = if is_foreign { "'self'" } else { "'none'" };
    // The page's requests come from this origin, which is let in: so whoever may not connect must not embed it.
    let ancestors = match origins {
        Origins::Any => "*".to_owned(),
        Origins::Only(list) => format!("'self' {}", list.join(" ")),
    };
    format!(
        "default-src 'none'; script-src 'sha256-{inline}' {source}; connect-src 'self'; frame-src {frames}; \
         base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
    )
}

/// The entity tag of [`IFRAME_SCRIPT`].
#[must_use]
pub fn script_etag() -> &'static str {
    static TAG: OnceLock<String> = OnceLock::new();
    TAG.get_or_init(|| etag(IFRAME_SCRIPT))
}

/// Whether an `If-None-Match` header says that the client has what has this tag.
#[must_use]
pub fn is_known(etag: &str, if_none_match: &str) -> bool {
    let mut tags = if_none_match.split(',').map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

fn etag(body: &str) -> String {
    format!("\"{:016x}\"", fnv1a(body.as_bytes()))
}

fn escape_attribute(text: &str) -> String {
    let mut escaped = text.replace('&', "&amp;");
    for (character, entity) in [('"', "&quot;"), ('<', "&lt;"), ('>', "&gt;")] {
        escaped = escaped.replace(character, entity);
    }
    escaped
}

/// The 64-bit FNV-1a hash: the same on every node and in every version, which is all a tag needs.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(url: Option<&str>) -> IframePage {
        IframePage::new(url, &Origins::Any)
    }

    #[test]
    fn the_page_loads_our_own_script_and_no_other() {
        let own = page(None);
        assert_eq!(own.body.lines().count(), 16);
        let script = "  <script src=\"iframe.js\"></script>\n  <script>\n";
        assert!(own.body.contains(script), "{}", own.body);
        assert!(own.body.ends_with("</html>"));
        assert!(
            own.policy
                .starts_with("default-src 'none'; script-src 'sha256-")
        );
        assert!(!own.policy.contains("unsafe") && !own.policy.contains("http"));
        assert!(own.policy.ends_with("frame-ancestors *"));
    }

    #[test]
    fn a_library_elsewhere_is_named_in_the_policy_and_may_have_its_integrity() {
        let other = page(Some("https://cdn.example/a;b.js#sha384-abc+/="));
        let script = "src=\"https://cdn.example/a;b.js\" integrity=\"sha384-abc+/=\" crossorigin=\"anonymous\"></script>";
        assert!(other.body.contains(script), "{}", other.body);
        assert!(
            other
                .policy
                .contains(" https://cdn.example/a%3Bb.js; connect-src")
        );
        let local = page(Some("/sockjs.js?a=1&b=\"><script>"));
        let script = "  <script src=\"/sockjs.js?a=1&amp;b=&quot;&gt;&lt;script&gt;\"></script>\n";
        assert!(local.body.contains(script));
        assert!(local.policy.contains(" 'self'; connect-src"));
    }

    #[test]
    fn only_pages_that_may_connect_may_embed_it() {
        let list = vec![
            "https://a.example".to_owned(),
            "https://b.example".to_owned(),
        ];
        let page = IframePage::new(None, &Origins::Only(list));
        let ancestors = "frame-ancestors 'self' https://a.example https://b.example";
        assert!(page.policy.ends_with(ancestors), "{}", page.policy);
    }

    #[test]
    fn tags_are_quoted_and_known_by_their_value() {
        let page = page(None);
        assert!(page.etag.starts_with('"') && page.etag.ends_with('"'));
        assert_ne!(page.etag, self::page(Some("/b.js")).etag);
        assert!(is_known(&page.etag, &page.etag));
        assert!(is_known(&page.etag, &format!("\"x\", W/{}", page.etag)));
        assert!(is_known(&page.etag, "*") && !is_known(&page.etag, "\"x\""));
        assert_ne!(script_etag(), page.etag);
    }
}
