//! Every encoding of a message can be read back, and none breaks out of its frame.

#![no_main]

use answerback::sockjs::Form;
use answerback::sockjs::payload::{encode, quote, quote_for_script};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut literal = BytesMut::new();
    quote(text.as_bytes(), &mut literal);
    assert_eq!(serde_json::from_slice::<String>(&literal).unwrap(), text);

    let mut line = BytesMut::new();
    encode(Form::Line, text.as_bytes(), &mut line);
    let array = line
        .strip_prefix(b"a")
        .unwrap()
        .strip_suffix(b"\n")
        .unwrap();
    assert!(!array.contains(&b'\n'));
    assert_eq!(
        serde_json::from_slice::<[String; 1]>(array).unwrap(),
        [text]
    );

    let mut event = BytesMut::new();
    encode(Form::Event, text.as_bytes(), &mut event);
    let data = event.strip_prefix(b"data: ").unwrap();
    let data = data.strip_suffix(b"\r\n\r\n").unwrap();
    assert!(!data.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));

    let mut script = BytesMut::new();
    quote_for_script(text.as_bytes(), &mut script);
    assert!(!script.contains(&b'<'));
    assert_eq!(serde_json::from_slice::<String>(&script).unwrap(), text);

    for form in Form::ALL {
        let mut once = BytesMut::new();
        encode(form, text.as_bytes(), &mut once);
        let mut twice = BytesMut::new();
        encode(form, text.as_bytes(), &mut twice);
        encode(form, text.as_bytes(), &mut twice);
        assert_eq!(twice, [&once[..], &once[..]].concat());
    }
});
