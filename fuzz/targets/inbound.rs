//! What a client sends is decoded or refused, and decoded as a strict parser would wherever that one accepts; paths have
//! one meaning, whatever is in them.

use answerback::sockjs::frame::callback;
use answerback::sockjs::inbound::{
    MESSAGES_MAX, decode_jsonp_send, decode_socket, decode_xhr_send,
};
use answerback::sockjs::path::{Route, SESSION_ID_MAX, Verdict, route};
use answerback::sockjs::settings::Transports;

pub(crate) fn check(data: &[u8]) {
    let decoded = decode_xhr_send(data);
    if let Ok(strict) = serde_json::from_slice::<Vec<String>>(data) {
        assert_eq!(decoded, Ok(strict));
    }
    if let Ok(messages) = &decoded {
        assert!(messages.len() <= MESSAGES_MAX);
        assert_eq!(decode_socket(data), decoded);
    }
    let _ = decode_socket(data);
    let _ = decode_jsonp_send(Some("application/x-www-form-urlencoded"), data);
    assert_eq!(decode_jsonp_send(Some("text/plain"), data), decoded);
    if let Ok(text) = std::str::from_utf8(data) {
        check_path(text);
        if let Ok(name) = callback(text) {
            assert!(!name.contains(['(', ')', '<', ';', '"', '\'', '\n']));
        }
    }
}

fn check_path(path: &str) {
    let on = Transports::default();
    let verdicts = ["GET", "POST", "OPTIONS", "PUT"].map(|method| route(path, method, &on));
    let is_found = verdicts[0] != Verdict::NotFound;
    for verdict in verdicts {
        assert_eq!(verdict != Verdict::NotFound, is_found, "{path}");
        let session = match verdict {
            Verdict::Serve(
                Route::Receive { session, .. }
                | Route::XhrSend { session }
                | Route::JsonpSend { session },
            ) => session,
            _ => continue,
        };
        assert!(!session.is_empty() && session.len() <= SESSION_ID_MAX);
        assert!(!session.contains(['/', '.']));
    }
    assert!(!matches!(verdicts[3], Verdict::Serve(_)), "{path}");
}
