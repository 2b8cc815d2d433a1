//! Tests of the sieve: what is kept, what is left out, and that what it gives is well formed whatever it was given.

use proptest::prelude::*;

use super::super::Body;
use super::*;

fn sieved(items: Items, room: usize, text: &str, step: usize) -> Sieved {
    let mut sieve = Sieve::new(items, room);
    for part in text.as_bytes().chunks(step.max(1)) {
        sieve.push(part);
    }
    sieve.finish()
}

fn queries(room: usize, text: &str) -> (String, Vec<(String, Reason)>) {
    let whole = sieved(Items::Queries, room, text, usize::MAX);
    for step in [1, 2, 3, 7] {
        let cut = sieved(Items::Queries, room, text, step);
        assert_eq!((&cut.body, &cut.omitted), (&whole.body, &whole.omitted));
    }
    let omitted = whole.omitted.into_iter();
    let omitted = omitted.map(|item| (item.name, item.reason)).collect();
    (String::from_utf8(whole.body).unwrap(), omitted)
}

#[test]
fn what_fits_is_kept_as_it_is_and_the_rest_is_named() {
    let text = r#" { "queries" : { "a\u0031" : [ {"x":"}\"]"} ], "b":[{"y":"long, long, long"}] , "c": "" },
        "statuses":{"a1":0,"b":0}, "node_key" : "k" } "#;
    let (body, omitted) = queries(1000, text);
    assert_eq!(
        body,
        r#"{"queries":{"a\u0031":[ {"x":"}\"]"} ],"b":[{"y":"long, long, long"}],"c":""},"statuses":{"a1":0,"b":0},"node_key":"k"}"#
    );
    assert_eq!(omitted, []);
    let (body, omitted) = queries(50, text);
    assert_eq!(
        body,
        r#"{"queries":{"a\u0031":[ {"x":"}\"]"} ],"c":""},"statuses":{"a1":0,"b":0},"node_key":"k"}"#
    );
    assert_eq!(omitted, [("b".to_owned(), Reason::TooLarge(26))]);
    let (body, omitted) = queries(12, text);
    assert_eq!(
        body,
        r#"{"queries":{},"statuses":{"a1":0,"b":0},"node_key":"k"}"#
    );
    let names: Vec<&str> = omitted.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a1", "b", "c"]);
}

#[test]
fn a_body_that_breaks_off_or_is_no_json_keeps_what_was_whole() {
    for (text, kept, cut) in [
        (
            r#"{"queries":{"a":[],"b":[{"x":"#,
            r#"{"queries":{"a":[]}}"#,
            Some("b"),
        ),
        (
            r#"{"queries":{"a":[],"b"#,
            r#"{"queries":{"a":[]}}"#,
            Some(""),
        ),
        (
            r#"{"queries":{"a":[],"b":[}],"c":[]}"#,
            r#"{"queries":{"a":[]}}"#,
            Some("b"),
        ),
        (
            r#"{"node_key":"k","queries":{"a":[]"#,
            r#"{"node_key":"k","queries":{"a":[]}}"#,
            None,
        ),
        (
            r#"{"node_key":"k","queries":{"a":[]},"stat"#,
            r#"{"node_key":"k","queries":{"a":[]}}"#,
            None,
        ),
        (r#"{"node_key":"k"} x"#, r#"{"node_key":"k"}"#, None),
        (r#"{"a" 1}"#, "{}", None),
        ("[1]", "{}", None),
        ("", "{}", None),
        ("{", "{}", None),
    ] {
        let (body, omitted) = queries(1000, text);
        assert_eq!(body, kept, "{text}");
        let omitted: Vec<_> = omitted
            .iter()
            .map(|(name, reason)| (name.as_str(), *reason))
            .collect();
        let expected: Vec<_> = cut.into_iter().map(|name| (name, Reason::Cut)).collect();
        assert_eq!(omitted, expected, "{text}");
    }
}

#[test]
fn what_is_nested_too_deep_is_left_out_alone() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let text = format!(r#"{{"queries":{{"a":{deep},"b":[]}},"node_key":"k","x":{deep}}}"#);
    let (body, omitted) = queries(1 << 20, &text);
    assert_eq!(body, r#"{"queries":{"b":[]},"node_key":"k"}"#);
    assert_eq!(omitted, [("a".to_owned(), Reason::TooDeep)]);
}

#[test]
fn the_elements_of_a_list_are_kept_one_by_one() {
    let text = r#"{"log_type":"result","data":[{"a":1}, {"b":"much too long for the room"},{"c":3}],"node_key":"k"}"#;
    let kept = sieved(Items::Data, 60, text, 5);
    assert_eq!(
        std::str::from_utf8(&kept.body).unwrap(),
        r#"{"log_type":"result","data":[{"a":1},{"c":3}],"node_key":"k"}"#
    );
    assert_eq!(kept.omitted.len(), 1);
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let mut sieve = Sieve::new(Items::Queries, 1000);
    sieve.push(br#"{"queries":{"#);
    let long = "n".repeat(100_000);
    for number in 0..20_000 {
        sieve.push(format!(r#""{number}{}":"{long}","#, &long[..number % 9_000]).as_bytes());
    }
    assert!(sieve.held() < 1000 + NAME_BYTES + 10);
    let sieved = sieve.finish();
    assert_eq!(sieved.omitted.len(), OMITTED_MAX);
    assert_eq!(sieved.more, 20_000 - OMITTED_MAX as u64);
}

proptest! {
    #[test]
    fn whatever_it_is_given_the_body_is_well_formed(
        text in r#"[\[\]{}",:\\a0 ]{0,60}|\{"queries":\{("[ab]":(\[[0-9,\[\]{}"a]{0,6}\]|"a?"|1),?){0,4}\}?,?("node_key":"k")?\}?"#,
        room in 0usize..80,
        step in 1usize..9,
    ) {
        let kept = sieved(Items::Queries, room, &text, step);
        let kept = String::from_utf8(kept.body).unwrap();
        let body = Body::parse(&kept);
        prop_assert!(body.fault.is_none(), "{} became {}", text, kept);
    }
}
