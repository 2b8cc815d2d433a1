//! The bodies that simulated agents send, and what they are called.

use std::io::Write;

use serde_json::{Value, json};

use crate::probe::{COLUMN, Probe};

/// What the names of live queries begin with; the campaign's id follows.
pub(crate) const LIVE_PREFIX: &str = "fleet_distributed_query_";

/// The operating systems that simulated hosts claim, in turn.
const PLATFORMS: [(&str, &str, &str); 4] = [
    ("ubuntu", "Ubuntu", "24.04.2"),
    ("darwin", "macOS", "15.3.1"),
    ("windows", "Microsoft Windows 11 Pro", "10.0"),
    ("centos", "CentOS Stream", "9"),
];

fn platform(host: u32) -> (&'static str, &'static str, &'static str) {
    PLATFORMS[host as usize % PLATFORMS.len()]
}

/// The name by which a host enrols; the same in every run, so that runs do not fill the server.
pub(crate) fn identifier(prefix: &str, host: u32) -> String {
    format!("{prefix}-{host:07}")
}

/// The body of `enroll`.
pub(crate) fn enrolment(secret: &str, prefix: &str, host: u32) -> String {
    let name = identifier(prefix, host);
    json!({
        "enroll_secret": secret,
        "host_identifier": name,
        "host_details": {
            "os_version": first(detail("os_version", prefix, host)),
            "osquery_info": first(detail("osquery_info", prefix, host)),
            "system_info": first(detail("system_info", prefix, host)),
        },
    })
    .to_string()
}

fn first(rows: Value) -> Value {
    rows.get(0).cloned().unwrap_or_else(|| json!({}))
}

/// The body of `config` and `distributed/read`.
pub(crate) fn key(node_key: &str) -> String {
    json!({ "node_key": node_key }).to_string()
}

/// How a host answers a live query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// One row with the mark.
    Row,
    /// Status 1, and the mark in the message.
    Failure,
}

/// Appends the body of `distributed/write` that answers these campaigns.
pub(crate) fn answers(
    node_key: &str,
    campaigns: &[u64],
    outcome: Outcome,
    probe: Probe,
    length: usize,
    out: &mut Vec<u8>,
) {
    // Writing into a vector cannot fail; node keys are strings of the server's own.
    let key = Value::from(node_key);
    let _ = write!(out, "{{\"node_key\":{key},\"queries\":{{");
    list(campaigns, out, |out| match outcome {
        Outcome::Row => {
            let _ = write!(out, "[{{\"{COLUMN}\":\"");
            probe.write(length, out);
            out.extend_from_slice(b"\"}]");
        }
        Outcome::Failure => out.extend_from_slice(b"\"\""),
    });
    out.extend_from_slice(b"},\"statuses\":{");
    list(campaigns, out, |out| {
        out.push(if outcome == Outcome::Row { b'0' } else { b'1' });
    });
    out.extend_from_slice(b"},\"messages\":{");
    list(campaigns, out, |out| {
        out.push(b'"');
        if outcome == Outcome::Failure {
            let _ = write!(out, "{COLUMN} ");
            probe.write(0, out);
        }
        out.push(b'"');
    });
    out.extend_from_slice(b"}}");
}

fn list(campaigns: &[u64], out: &mut Vec<u8>, value: impl Fn(&mut Vec<u8>)) {
    for (at, campaign) in campaigns.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(out, "{comma}\"{LIVE_PREFIX}{campaign}\":");
        value(out);
    }
}

/// The rows that answer one of the server's own queries about a host.
pub(crate) fn own_answer(name: &str, sql: &str, prefix: &str, host: u32) -> Value {
    let sql = sql.to_ascii_lowercase();
    if name.contains("label_query") {
        let (platform, title, _) = platform(host);
        let named = PLATFORMS.iter().any(|(name, ..)| sql.contains(name)) || sql.contains("where");
        let mine = sql.contains(platform) || sql.contains(&title.to_ascii_lowercase());
        let listed_out = sql.contains("not in");
        return if mine != listed_out || !named {
            json!([{ "1": "1" }])
        } else {
            json!([])
        };
    }
    detail(&sql, prefix, host)
}

/// The rows of the first table that `text` names.
fn detail(text: &str, prefix: &str, host: u32) -> Value {
    let name = identifier(prefix, host);
    let (platform, title, version) = platform(host);
    if text.contains("os_version") {
        let (major, rest) = version.split_once('.').unwrap_or((version, "0"));
        return json!([{
            "name": title, "version": version, "platform": platform, "platform_like": platform,
            "major": major, "minor": rest, "patch": "0", "build": "", "arch": "x86_64",
        }]);
    }
    if text.contains("system_info") {
        return json!([{
            "hostname": name, "computer_name": name, "uuid": name, "hardware_serial": name,
            "cpu_brand": "Load tester", "cpu_logical_cores": "8", "cpu_physical_cores": "4",
            "physical_memory": "17179869184", "hardware_vendor": "loadtest",
            "hardware_model": "simulated", "cpu_type": "x86_64",
        }]);
    }
    if text.contains("osquery_info") {
        return json!([{
            "version": "5.16.0", "build_platform": platform, "pid": "400", "uuid": name,
            "instance_id": name, "config_valid": "1", "extensions": "active",
        }]);
    }
    if text.contains("osquery_flags") {
        return json!([
            { "name": "distributed_interval", "value": "10" },
            { "name": "config_refresh", "value": "60" },
            { "name": "logger_tls_period", "value": "10" },
        ]);
    }
    if text.contains("uptime") {
        return json!([{ "total_seconds": "86400", "days": "1", "hours": "0" }]);
    }
    json!([])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: Probe = Probe {
        run: 1,
        host: 2,
        stamp_ns: 3,
    };

    #[test]
    fn an_answer_is_the_json_that_osquery_writes() {
        let mut out = Vec::new();
        answers("k\"1", &[5, 6], Outcome::Row, PROBE, 30, &mut out);
        let body: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(body["node_key"], "k\"1");
        let row = &body["queries"]["fleet_distributed_query_6"][0][COLUMN];
        assert_eq!(row.as_str().unwrap().len(), 30);
        assert_eq!(body["statuses"]["fleet_distributed_query_5"], 0);

        out.clear();
        answers("k", &[5], Outcome::Failure, PROBE, 30, &mut out);
        let body: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(body["queries"]["fleet_distributed_query_5"], "");
        assert_eq!(body["statuses"]["fleet_distributed_query_5"], 1);
        let message = body["messages"]["fleet_distributed_query_5"].as_str();
        assert_eq!(Probe::find(message.unwrap().as_bytes()), Some(PROBE));
    }

    #[test]
    fn labels_match_the_host_s_platform_only() {
        let asks = |sql: &str, host| own_answer("fleet_label_query_3", sql, "lt", host);
        let ubuntu = "select 1 from os_version where platform = 'ubuntu'";
        assert_eq!(asks(ubuntu, 0), json!([{ "1": "1" }]));
        assert_eq!(asks(ubuntu, 1), json!([]));
        assert_eq!(asks("select 1", 2), json!([{ "1": "1" }]));
        let enrolment: Value = serde_json::from_str(&enrolment("s", "lt", 7)).unwrap();
        assert_eq!(enrolment["host_identifier"], "lt-0000007");
        assert_eq!(
            enrolment["host_details"]["os_version"]["platform"],
            "centos"
        );
        let flags = own_answer(
            "fleet_detail_query_3",
            "select * from osquery_flags",
            "lt",
            0,
        );
        assert_eq!(flags.as_array().unwrap().len(), 3);
    }
}
