//! The three documents every mount serves: the greeting, the server's information, the iframe page.

use super::settings::Settings;

/// What the prefix itself answers.
pub const GREETING: &str = "Welcome to SockJS!\n";

/// The information document. `entropy` is fresh for every request and comes from a source that
/// cannot be guessed.
#[must_use]
pub fn info(settings: &Settings, entropy: u32) -> String {
    let mut document = serde_json::json!({
        "websocket": settings.transports.websocket,
        "cookie_needed": settings.jsessionid,
        "origins": ["*:*"],
        "entropy": entropy,
    });
    if let Some(base_url) = &settings.base_url {
        document["base_url"] = base_url.as_str().into();
    }
    document.to_string()
}

/// The iframe page and its entity tag. Both depend on the settings alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IframePage {
    /// HTML.
    pub body: String,
    /// A quoted string, derived from the body.
    pub etag: String,
}

impl IframePage {
    /// The page that loads the client library from `sockjs_url`.
    #[must_use]
    pub fn new(sockjs_url: &str) -> Self {
        let url = escape_attribute(sockjs_url);
        let lines = [
            "<!DOCTYPE html>",
            "<html>",
            "<head>",
            "  <meta http-equiv=\"X-UA-Compatible\" content=\"IE=edge\" />",
            "  <meta http-equiv=\"Content-Type\" content=\"text/html; charset=UTF-8\" />",
            &format!("  <script src=\"{url}\"></script>"),
            "  <script>",
            "    document.domain = document.domain;",
            "    SockJS.bootstrap_iframe();",
            "  </script>",
            "</head>",
            "<body>",
            "  <h2>Don't panic!</h2>",
            "  <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>",
            "</body>",
            "</html>",
        ];
        let body = lines.join("\n");
        let etag = format!("\"{:016x}\"", fnv1a(body.as_bytes()));
        Self { body, etag }
    }

    /// Whether an `If-None-Match` header says that the client has this page already.
    #[must_use]
    pub fn is_known(&self, if_none_match: &str) -> bool {
        let mut tags = if_none_match.split(',').map(str::trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag)
    }
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

    #[test]
    fn info_has_the_types_that_clients_look_at() {
        let mut settings = Settings::default();
        let value: serde_json::Value = serde_json::from_str(&info(&settings, u32::MAX)).unwrap();
        assert_eq!(value["websocket"], true);
        assert_eq!(value["cookie_needed"], false);
        assert_eq!(value["origins"], serde_json::json!(["*:*"]));
        assert_eq!(value["entropy"], 4_294_967_295_u64);
        assert!(value.get("base_url").is_none());
        settings.base_url = Some("https://b.example/x".into());
        assert!(info(&settings, 1).contains(r#""base_url":"https://b.example/x""#));
    }

    #[test]
    fn the_iframe_page_loads_the_library_and_then_starts_it() {
        let page = IframePage::new("/sockjs.js?a=1&b=\"><script>");
        assert_eq!(page.body.lines().count(), 16);
        assert!(page.body.contains(
            "  <script src=\"/sockjs.js?a=1&amp;b=&quot;&gt;&lt;script&gt;\"></script>\n  <script>\n"
        ));
        assert!(page.body.ends_with("</html>"));
    }

    #[test]
    fn the_tag_is_quoted_and_known_by_its_value() {
        let page = IframePage::new("/a.js");
        assert!(page.etag.starts_with('"') && page.etag.ends_with('"'));
        assert_ne!(page.etag, IframePage::new("/b.js").etag);
        assert!(page.is_known(&page.etag));
        assert!(page.is_known(&format!("\"x\", W/{}", page.etag)));
        assert!(page.is_known("*") && !page.is_known("") && !page.is_known("\"x\""));
    }
}
