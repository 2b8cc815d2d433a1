//! Tests of the cutting of JSON text.

use super::*;

fn members(text: &str) -> Vec<(String, String)> {
    let members = Value::parse(text).unwrap().members().unwrap();
    let members = members.map(|member| member.unwrap());
    members
        .map(|(key, value)| (key.into_owned(), value.raw().to_owned()))
        .collect()
}

#[test]
fn an_object_is_cut_into_members_whatever_the_spacing() {
    let expected = [
        ("a".to_owned(), "[1, {\"}\":2}]".to_owned()),
        ("b\"".to_owned(), "null".to_owned()),
    ];
    assert_eq!(
        members(" {\"a\": [1, {\"}\":2}] ,\n \"b\\\"\":null } "),
        expected
    );
    assert_eq!(members(r#"{"a":[1, {"}":2}],"b\"":null}"#), expected);
    assert!(members("{ }").is_empty());
}

#[test]
fn broken_texts_are_refused() {
    for text in [
        "", " ", "{", "[", "\"", "\"\\\"", "\"\\", "{]", "[}", "[1}", "{} x", "{}{}", ",", "[[]",
        "}",
    ] {
        assert!(
            matches!(Value::parse(text), Err(Fault::Syntax(_))),
            "{text}"
        );
    }
    for text in [
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{a:1}"#,
        r#"{"a":1 "b":2}"#,
        r#"{,}"#,
        r#"{"a":1:2}"#,
    ] {
        let mut members = Value::parse(text).unwrap().members().unwrap();
        assert!(members.any(|member| member.is_err()), "{text}");
        assert!(members.next().is_none());
    }
    for text in ["[,]", "[1,]", "[1 2]", "[:]"] {
        let mut elements = Value::parse(text).unwrap().elements().unwrap();
        assert!(elements.any(|element| element.is_err()), "{text}");
    }
}

#[test]
fn depth_is_bounded_without_recursion() {
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(Value::parse(&deep(DEPTH_MAX as usize)).is_ok());
    assert_eq!(
        Value::parse(&deep(DEPTH_MAX as usize + 1)),
        Err(Fault::TooDeep)
    );
    assert_eq!(
        Value::parse(&"{\"a\":[".repeat(100_000)),
        Err(Fault::TooDeep)
    );
}

#[test]
fn strings_say_what_they_mean_and_never_less() {
    let text = |raw| Value::parse(raw).unwrap().text().unwrap().into_owned();
    assert_eq!(text(r#""plain ü""#), "plain ü");
    assert_eq!(
        text(r#""\"\\\/\b\f\n\r\t\u00e4""#),
        "\"\\/\u{8}\u{c}\n\r\tä"
    );
    assert_eq!(text(r#""\ud83d\ude00""#), "😀");
    assert_eq!(text(r#""a\ud83d""#), "a\u{fffd}");
    assert_eq!(text(r#""\ude00\ud83d\ud83d\ude00""#), "\u{fffd}\u{fffd}😀");
    assert_eq!(text(r#""\q\u12""#), "\u{fffd}q\u{fffd}u12");
}

#[test]
fn numbers_come_as_numbers_or_strings() {
    let integer = |raw| Value::parse(raw).unwrap().integer();
    assert_eq!(integer("1"), Some(1));
    assert_eq!(integer("\" -7 \""), Some(-7));
    assert_eq!(integer("1.9e1"), Some(19));
    assert_eq!(integer("1e400"), None);
    assert_eq!(integer("\"x\""), None);
    assert_eq!(integer("null"), None);
    assert_eq!(integer("[]"), None);
}

#[test]
fn every_special_byte_is_found_at_every_place() {
    for special in [b'"', b'\\', 0, 0x1f, b'\n'] {
        for place in 0..40 {
            let mut bytes = vec![0xE9u8; 40];
            bytes[place] = special;
            assert_eq!(plain_len(&bytes), place);
            let mut bytes = vec![b'!'; 40];
            bytes[place] = special;
            assert_eq!(plain_len(&bytes), place);
        }
    }
    assert_eq!(plain_len(&[0x7f; 17]), 17);
}
