//! Tests of the copying of rows, against a plain reading of the same JSON.

use proptest::prelude::*;
use serde_json::{Map, Value as Json};

use super::super::scan::Value;
use super::*;

const COLUMNS: &str = r#""host_hostname":"h","host_display_name":"d""#;
const PLENTY: usize = 1 << 20;

fn rows(text: &str) -> Result<String, RowsFault> {
    let mut out = Vec::new();
    let value = Value::parse(text).map_err(|_| RowsFault::Syntax)?;
    write_rows(value, COLUMNS.as_bytes(), PLENTY, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

/// The rows without the two columns that every row must have.
fn own(text: &str) -> String {
    let out = rows(text).unwrap();
    assert_eq!(out.matches(COLUMNS).count(), out.matches('}').count());
    out.replace(&format!(",{COLUMNS}"), "").replace(COLUMNS, "")
}

#[test]
fn rows_of_strings_are_copied_as_they_are() {
    assert_eq!(
        own(r#"[{"a":"1","b":"x\"\\\/\b\f\n\r\t\u00e9ü"},{"c":""}]"#),
        r#"[{"a":"1","b":"x\"\\\/\b\f\n\r\t\u00e9ü"},{"c":""}]"#
    );
    assert_eq!(rows("[]").unwrap(), "[]");
    assert_eq!(rows(" [ \n] ").unwrap(), "[]");
    assert_eq!(rows("[{}]").unwrap(), format!("[{{{COLUMNS}}}]"));
}

#[test]
fn white_space_between_tokens_goes_and_within_strings_stays() {
    assert_eq!(
        own(" [ { \"a\" : \" b \" ,\n\t\"c\":\"d\" } , { } ]\r\n"),
        r#"[{"a":" b ","c":"d"},{}]"#
    );
}

#[test]
fn scalars_become_strings() {
    assert_eq!(
        own(r#"[{"a":1,"b":-2.5e+3,"c":true,"d":false,"e":null, "f": 7 }]"#),
        r#"[{"a":"1","b":"-2.5e+3","c":"true","d":"false","e":"","f":"7"}]"#
    );
}

#[test]
fn null_rows_are_dropped_wherever_they_stand() {
    assert_eq!(
        own(r#"[null,{"a":"1"},null , null,{"b":"2"},null]"#),
        r#"[{"a":"1"},{"b":"2"}]"#
    );
    assert_eq!(own("[null]"), "[]");
}

#[test]
fn a_host_cannot_name_itself() {
    assert_eq!(own(r#"[{"host_hostname":"evil"}]"#), "[{}]");
    assert_eq!(
        own(r#"[{"a":"1","host_hostname":"evil","b":"2"}]"#),
        r#"[{"a":"1","b":"2"}]"#
    );
    assert_eq!(
        own(r#"[{"host_display_name":5 , "a":"1"}]"#),
        r#"[{"a":"1"}]"#
    );
    assert_eq!(
        own(r#"[{"a":"1", "host\u005fhostname":null}]"#),
        r#"[{"a":"1"}]"#
    );
    assert_eq!(
        own(r#"[{"\u0068ost_display_name":"\ud800","host_hostname":"x"}]"#),
        "[{}]"
    );
    assert_eq!(
        own(r#"[{"host_hostname2":"x","host":"y"}]"#),
        r#"[{"host_hostname2":"x","host":"y"}]"#
    );
}

#[test]
fn what_is_not_unicode_is_replaced_and_never_lost() {
    assert_eq!(
        own(r#"[{"a":"x\ud83dy","b\udc00":"\ud83d\ude00"}]"#),
        r#"[{"a":"x\ufffdy","b\ufffd":"\ud83d\ude00"}]"#
    );
    assert_eq!(
        own("[{\"a\":\"1\n2\u{1}\"}]"),
        r#"[{"a":"1\u000a2\u0001"}]"#
    );
}

#[test]
fn rows_of_another_shape_are_refused() {
    use RowsFault::{Nested, NotRows, Syntax};
    for (text, fault) in [
        (r#""""#, NotRows),
        ("{}", NotRows),
        ("null", NotRows),
        ("5", NotRows),
        ("[1]", NotRows),
        (r#"["a"]"#, NotRows),
        ("[[]]", NotRows),
        (r#"[{"a":{}}]"#, Nested),
        (r#"[{"a":[1]}]"#, Nested),
        (r#"[{"a"}]"#, Syntax),
        (r#"[{"a":}]"#, Syntax),
        (r#"[{"a":"1",}]"#, Syntax),
        (r#"[{"a":"1"},]"#, Syntax),
        ("[,]", Syntax),
        (r#"[{"a":"1"}{}]"#, Syntax),
        (r#"[{"a":"1" "b":"2"}]"#, Syntax),
        (r#"[{a:"1"}]"#, Syntax),
        (r#"[{"a":nil}]"#, Syntax),
        (r#"[{"a":nulls}]"#, Syntax),
        (r#"[{"a":-}]"#, Syntax),
        (r#"[{"a":1x}]"#, Syntax),
        (r#"[{"a":"\q"}]"#, Syntax),
        (r#"[{"a":"\u12"}]"#, Syntax),
        (r#"[nul]"#, Syntax),
        (r#"[{1:2}]"#, Syntax),
        (r#"[{"host_hostname":{}}]"#, Nested),
        (r#"[{"a":"1",,"b":"2"}]"#, Syntax),
        (r#"[truex]"#, NotRows),
    ] {
        assert_eq!(rows(text), Err(fault), "{text}");
    }
}

#[test]
fn the_columns_we_add_cannot_blow_an_answer_up() {
    let text = format!("[{}{{}}]", "{},".repeat(100_000));
    assert_eq!(rows(&text), Err(RowsFault::TooLarge));
}

#[test]
fn any_value_becomes_one_line() {
    let compact = |text: &str| {
        let mut out = b"before ".to_vec();
        write_compact(Value::parse(text).unwrap(), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    };
    assert_eq!(
        compact("{ \"a\" : [ 1, {\"b\n\":null} ] }").unwrap(),
        r#"before {"a":[1,{"b\u000a":null}]}"#
    );
    assert_eq!(compact("\"\\udddd\""), Ok(r#"before "\ufffd""#.to_owned()));
    assert_eq!(compact("{a:1}"), Err(RowsFault::Syntax));
    assert_eq!(compact("[1 2]"), Err(RowsFault::Syntax));
}

/// What the rows should be, by way of a JSON tree.
fn expected(rows: &Json) -> Json {
    let own = |row: &Map<String, Json>| {
        let mut out = Map::new();
        for (key, value) in row {
            let text = match value {
                Json::String(text) => text.clone(),
                Json::Null => String::new(),
                other => other.to_string(),
            };
            out.insert(key.clone(), text.into());
        }
        out.insert("host_hostname".into(), "h".into());
        out.insert("host_display_name".into(), "d".into());
        Json::Object(out)
    };
    rows.as_array()
        .unwrap()
        .iter()
        .filter_map(Json::as_object)
        .map(own)
        .collect()
}

fn scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        ".{0,20}".prop_map(Json::String),
        any::<i64>().prop_map(Json::from),
        any::<bool>().prop_map(Json::from),
        Just(Json::Null),
    ]
}

fn any_rows() -> impl Strategy<Value = Json> {
    let key = prop_oneof![".{0,12}", "host_(hostname|display_name)"];
    let row = proptest::collection::btree_map(key, scalar(), 0..5);
    let row = row.prop_map(|row| Json::Object(row.into_iter().collect()));
    proptest::collection::vec(prop_oneof![4 => row, 1 => Just(Json::Null)], 0..5)
        .prop_map(Json::Array)
}

proptest! {
    #[test]
    fn rows_mean_what_a_plain_reading_says(json in any_rows(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) }.unwrap();
        let out: Json = serde_json::from_str(&rows(&text).unwrap()).unwrap();
        prop_assert_eq!(out, expected(&json));
    }

    #[test]
    fn whatever_is_taken_is_json(text in r#"\[[\[\]{}",:a0\\u dnul\-.]{0,30}\]"#) {
        if let Ok(out) = rows(&text) {
            prop_assert!(serde_json::from_str::<Json>(&out).is_ok(), "{} -> {}", text, out);
        }
    }

    #[test]
    fn damage_anywhere_never_panics_and_never_makes_bad_json(json in any_rows(), place in any::<prop::sample::Index>(), byte in 0u8..128) {
        let mut text = serde_json::to_vec(&json).unwrap();
        let place = place.index(text.len());
        if text[place].is_ascii() {
            text[place] = byte;
        }
        if let Ok(text) = String::from_utf8(text) && let Ok(out) = rows(&text) {
            prop_assert!(serde_json::from_str::<Json>(&out).is_ok(), "{} -> {}", text, out);
        }
    }
}

#[test]
fn a_row_has_as_many_columns_as_a_query_can() {
    let row = |count: usize| {
        let cells: Vec<String> = (0..count).map(|at| format!("\"c{at}\":1")).collect();
        format!("[{{{}}}]", cells.join(","))
    };
    assert!(rows(&row(COLUMNS_MAX)).is_ok());
    assert_eq!(rows(&row(COLUMNS_MAX + 1)), Err(RowsFault::TooWide));
}
