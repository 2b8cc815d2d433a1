//! Whatever a client sends is decoded or refused, and decoded as a strict parser would wherever that one accepts.

#![no_main]

use answerback::sockjs::frame::callback;
use answerback::sockjs::inbound::{decode_jsonp_send, decode_socket, decode_xhr_send};
use answerback::sockjs::path::route;
use answerback::sockjs::settings::Transports;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let decoded = decode_xhr_send(body);
    if let Ok(strict) = serde_json::from_slice::<Vec<String>>(body) {
        assert_eq!(decoded, Ok(strict));
    }
    if decoded.is_ok() {
        assert_eq!(decode_socket(body), decoded);
    }
    let _ = decode_socket(body);
    let _ = decode_jsonp_send(Some("application/x-www-form-urlencoded"), body);
    if let Ok(text) = std::str::from_utf8(body) {
        let _ = route(text, "POST", &Transports::default());
        if let Ok(name) = callback(text) {
            assert!(!name.contains(['(', ')', '<', ';', '"', '\'', '\n']));
        }
    }
});
