//! The application messages of a campaign's stream: a quick scan, and a reading in full.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::probe::{COLUMN, Probe, number, padding};
use crate::sockjs::{Depth, unquote};

/// What a viewer hears.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    Totals,
    Status {
        expected: u64,
        actual: u64,
        finished: bool,
    },
    Result {
        /// The mark of the answer; none if it is not one of ours.
        probe: Option<Probe>,
        /// The position in the campaign's log, where the server tells it.
        seq: Option<u64>,
    },
    Error(String),
    /// Not a message of the protocol, or not what was sent: why.
    Malformed(String),
}

/// What a result must be, for a reading in full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) campaign: u64,
    pub(crate) run: u32,
    /// Length of the mark.
    pub(crate) length: usize,
}

/// Reads a result by scanning for its mark and position; anything else in full.
pub(crate) fn scan(message: &[u8], depth: Depth) -> Heard {
    if is_result(message) {
        return Heard::Result {
            probe: Probe::find(message),
            seq: seq(message),
        };
    }
    match unquote(message, depth) {
        Ok(plain) => parse(&plain, None),
        Err(error) => Heard::Malformed(error.to_string()),
    }
}

/// Reads every message in full and compares results with what was sent.
pub(crate) fn read(message: &[u8], depth: Depth, expected: Expected) -> Heard {
    match unquote(message, depth) {
        Ok(plain) => parse(&plain, Some(expected)),
        Err(error) => Heard::Malformed(error.to_string()),
    }
}

/// Whether the message begins `{"type":"result"`, however deeply quoted.
fn is_result(message: &[u8]) -> bool {
    let noise = |byte: &u8| matches!(byte, b'{' | b'"' | b'\\' | b':' | b' ');
    let skip = |bytes: &[u8]| bytes.iter().take_while(|byte| noise(byte)).count();
    let rest = &message[skip(message)..];
    let Some(rest) = rest.strip_prefix(b"type") else {
        return false;
    };
    let rest = &rest[skip(rest)..];
    rest.strip_prefix(b"result")
        .is_some_and(|rest| matches!(rest.first(), Some(b'"' | b'\\')))
}

/// The value behind the key `seq`.
fn seq(message: &[u8]) -> Option<u64> {
    static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("seq"));
    for at in FINDER.find_iter(message) {
        let rest = &message[at + 3..];
        let quotes = rest.iter().take_while(|byte| matches!(byte, b'\\' | b'"'));
        let quotes = quotes.count();
        if quotes > 0
            && let Some(rest) = rest[quotes..].strip_prefix(b":")
            && let Some((seq, _)) = number(rest)
        {
            return Some(seq);
        }
    }
    None
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct TotalsData {
    count: u64,
    online: u64,
    offline: u64,
    #[serde(rename = "missing_in_action")]
    _missing: u64,
}

#[derive(Deserialize)]
struct StatusData {
    expected_results: u64,
    actual_results: u64,
    status: String,
}

#[derive(Deserialize)]
struct ResultData {
    distributed_query_execution_id: u64,
    host: HostData,
    rows: Vec<BTreeMap<String, String>>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    seq: Option<u64>,
}

#[derive(Deserialize)]
struct HostData {
    id: u64,
    hostname: String,
    #[serde(default)]
    display_name: Option<String>,
}

fn parse(plain: &[u8], expected: Option<Expected>) -> Heard {
    let outcome = serde_json::from_slice::<Envelope<'_>>(plain)
        .map_err(|error| error.to_string())
        .and_then(|envelope| judge(&envelope, expected));
    outcome.unwrap_or_else(Heard::Malformed)
}

fn judge(envelope: &Envelope<'_>, expected: Option<Expected>) -> Result<Heard, String> {
    let wrong = |error: serde_json::Error| format!("{}: {error}", envelope.kind);
    let data = envelope.data.get();
    match envelope.kind.as_str() {
        "totals" => {
            let totals: TotalsData = serde_json::from_str(data).map_err(wrong)?;
            if totals.online + totals.offline > totals.count {
                return Err(format!("totals do not add up: {data}"));
            }
            Ok(Heard::Totals)
        }
        "status" => {
            let status: StatusData = serde_json::from_str(data).map_err(wrong)?;
            if !matches!(status.status.as_str(), "pending" | "finished") {
                return Err(format!("unknown status {}", status.status));
            }
            Ok(Heard::Status {
                expected: status.expected_results,
                actual: status.actual_results,
                finished: status.status == "finished",
            })
        }
        "result" => {
            let result: ResultData = serde_json::from_str(data).map_err(wrong)?;
            let probe = Probe::find(data.as_bytes());
            if let (Some(expected), Some(probe)) = (expected, probe)
                && probe.run == expected.run
            {
                compare(&result, probe, expected)?;
            }
            Ok(Heard::Result {
                probe,
                seq: result.seq,
            })
        }
        "error" => {
            let text: String = serde_json::from_str(data).map_err(wrong)?;
            Ok(Heard::Error(text))
        }
        other => Err(format!("unknown message type {other}")),
    }
}

/// Compares a result with what the host sent.
fn compare(result: &ResultData, probe: Probe, expected: Expected) -> Result<(), String> {
    if result.distributed_query_execution_id != expected.campaign {
        let other = result.distributed_query_execution_id;
        return Err(format!("result of campaign {other}"));
    }
    if result.host.id == 0 {
        return Err("result without a host id".to_owned());
    }
    if let Some(error) = &result.error {
        if !result.rows.is_empty() {
            return Err(format!("rows beside the error {error}"));
        }
        return Ok(());
    }
    let [row] = result.rows.as_slice() else {
        return Err(format!("{} rows, one was sent", result.rows.len()));
    };
    let mut sent = Vec::new();
    probe.write(expected.length, &mut sent);
    if row.get(COLUMN).map(String::as_bytes) != Some(sent.as_slice()) {
        let host = probe.host;
        let pad: usize = padding(host, expected.length).map(<[u8]>::len).sum();
        return Err(format!("row of host {host} is not what was sent ({pad} B)"));
    }
    let named = row.get("host_hostname") == Some(&result.host.hostname)
        && row.get("host_display_name") == result.host.display_name.as_ref();
    if !named {
        return Err("row without its host's names".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: Probe = Probe {
        run: 9,
        host: 3,
        stamp_ns: 12_345,
    };
    const EXPECTED: Expected = Expected {
        campaign: 5,
        run: 9,
        length: 80,
    };

    fn result(change: impl Fn(&mut serde_json::Value)) -> String {
        let mut mark = Vec::new();
        PROBE.write(EXPECTED.length, &mut mark);
        let mark = String::from_utf8(mark).unwrap();
        let mut data = serde_json::json!({
            "distributed_query_execution_id": 5,
            "host": { "id": 4, "hostname": "h", "display_name": "h" },
            "rows": [{ COLUMN: mark, "host_hostname": "h", "host_display_name": "h" }],
            "error": null,
            "seq": 41,
        });
        change(&mut data);
        format!("{{\"type\":\"result\",\"data\":{data}}}")
    }

    fn quoted(message: &str) -> String {
        let literal = serde_json::Value::from(message).to_string();
        literal[1..literal.len() - 1].to_owned()
    }

    #[test]
    fn scan_and_full_reading_agree_at_every_depth() {
        let bare = result(|_| {});
        let heard = Heard::Result {
            probe: Some(PROBE),
            seq: Some(41),
        };
        let forms = [
            (bare.clone(), Depth::Bare),
            (quoted(&bare), Depth::Quoted),
            (quoted(&quoted(&bare)), Depth::Twice),
        ];
        for (message, depth) in forms {
            assert!(is_result(message.as_bytes()));
            assert_eq!(scan(message.as_bytes(), depth), heard);
            assert_eq!(read(message.as_bytes(), depth, EXPECTED), heard);
        }
    }

    #[test]
    fn a_full_reading_finds_what_was_changed_on_the_way() {
        let changes: [fn(&mut serde_json::Value); 6] = [
            |data| data["distributed_query_execution_id"] = 6.into(),
            |data| data["rows"][0][COLUMN] = "9.3.12345.short".into(),
            |data| data["rows"][0]["host_hostname"] = "other".into(),
            |data| data["host"]["id"] = 0.into(),
            |data| data["error"] = "why".into(),
            |data| {
                let row = data["rows"][0].clone();
                data["rows"] = serde_json::json!([row, row]);
            },
        ];
        for change in changes {
            let message = result(change);
            let heard = read(message.as_bytes(), Depth::Bare, EXPECTED);
            assert!(matches!(heard, Heard::Malformed(_)), "{message}");
        }
    }

    #[test]
    fn control_messages_are_read_and_nonsense_is_malformed() {
        let totals =
            br#"{"type":"totals","data":{"count":3,"online":1,"offline":2,"missing_in_action":0}}"#;
        assert_eq!(scan(totals, Depth::Bare), Heard::Totals);
        let status = r#"{"type":"status","data":{"expected_results":3,"actual_results":2,"status":"finished"}}"#;
        assert_eq!(
            scan(quoted(status).as_bytes(), Depth::Quoted),
            Heard::Status {
                expected: 3,
                actual: 2,
                finished: true
            }
        );
        assert_eq!(
            scan(br#"{"data":"unauthorized","type":"error"}"#, Depth::Bare),
            Heard::Error("unauthorized".to_owned())
        );
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"type":"shoe","data":1}"#,
            r#"{"type":"error","data":1}"#,
        ] {
            assert!(matches!(
                scan(bad.as_bytes(), Depth::Bare),
                Heard::Malformed(_)
            ));
        }
    }

    #[test]
    fn a_result_without_a_position_or_mark_says_so() {
        let message = result(|data| {
            data.as_object_mut().unwrap().remove("seq");
            data["rows"] = serde_json::json!([]);
        });
        let heard = Heard::Result {
            probe: None,
            seq: None,
        };
        assert_eq!(scan(message.as_bytes(), Depth::Bare), heard);
    }
}
