//! Every encoding of a message can be read back, and none breaks out of its frame.

use answerback::sockjs::Form;
use answerback::sockjs::payload::{encode, quote, quote_for_script};
use bytes::BytesMut;

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut literal = BytesMut::new();
    quote(text.as_bytes(), &mut literal);
    assert_eq!(
        serde_json::from_slice::<String>(&literal).ok().as_deref(),
        Some(text)
    );

    let mut line = BytesMut::new();
    encode(Form::Line, text.as_bytes(), &mut line);
    let array = line
        .strip_prefix(b"a")
        .and_then(|line| line.strip_suffix(b"\n"));
    let array = array.unwrap_or_default();
    assert!(!array.contains(&b'\n'));
    let read = serde_json::from_slice::<[String; 1]>(array);
    assert_eq!(read.ok(), Some([text.to_owned()]));

    let mut event = BytesMut::new();
    encode(Form::Event, text.as_bytes(), &mut event);
    let data = event
        .strip_prefix(b"data: ")
        .and_then(|event| event.strip_suffix(b"\r\n\r\n"));
    assert!(data.is_some_and(|data| !data.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))));

    let mut script = BytesMut::new();
    quote_for_script(text.as_bytes(), &mut script);
    assert!(!script.contains(&b'<'));
    assert_eq!(
        serde_json::from_slice::<String>(&script).ok().as_deref(),
        Some(text)
    );

    for form in Form::ALL {
        let mut once = BytesMut::new();
        encode(form, text.as_bytes(), &mut once);
        let mut twice = BytesMut::new();
        encode(form, text.as_bytes(), &mut twice);
        encode(form, text.as_bytes(), &mut twice);
        assert_eq!(twice, [&once[..], &once[..]].concat());
    }
}
