//! Two documents that every mount serves: the greeting and the server's information.

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
}
