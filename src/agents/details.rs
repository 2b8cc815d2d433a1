//! What hosts are asked about themselves, and how their answers change what is known of them.

use std::borrow::Cow;

use super::wire::Value;
use crate::catalog::entity::Host;
use crate::text::is_hidden;

/// The detail queries by name. The names of the first four are those of the tables, which osquery also sends when
/// it enrolls.
pub(super) const QUERIES: [(&str, &str); 6] = [
    ("os_version", "SELECT * FROM os_version LIMIT 1"),
    ("system_info", "SELECT * FROM system_info LIMIT 1"),
    ("osquery_info", "SELECT * FROM osquery_info LIMIT 1"),
    ("uptime", "SELECT * FROM uptime LIMIT 1"),
    (
        "network_interface",
        "SELECT a.address, d.mac FROM interface_addresses a JOIN interface_details d USING (interface) \
         WHERE d.mac NOT IN ('', '00:00:00:00:00:00') AND a.address NOT LIKE '127.%' \
         AND a.address NOT LIKE 'fe80:%' AND a.address NOT LIKE '169.254.%' AND a.address <> '::1' \
         ORDER BY CAST(d.ibytes AS INTEGER) + CAST(d.obytes AS INTEGER) DESC LIMIT 16",
    ),
    (
        "osquery_flags",
        "SELECT name, value FROM osquery_flags \
         WHERE name IN ('distributed_interval', 'config_tls_refresh', 'config_refresh')",
    ),
];

/// Characters that are kept of what a host says of itself; a hostname has at most 255.
const TEXT_CHARS_MAX: usize = 255;
/// Columns that are read of a row.
const COLUMNS_MAX: usize = 64;
/// Rows that are read of an answer.
const ROWS_MAX: usize = 16;

/// One row of a table, as text.
#[derive(Clone, Debug, Default)]
pub(super) struct Row(Vec<(String, String)>);

impl Row {
    /// Reads an object; what is no scalar counts as missing.
    pub(super) fn read(value: Value<'_>) -> Self {
        let members = value.members().into_iter().flatten().flatten();
        let scalars = members.filter_map(|(name, value)| Some((name, value.scalar()?)));
        let owned = scalars.map(|(name, value)| (name.into_owned(), clean(&value)));
        Self(owned.take(COLUMNS_MAX).collect())
    }

    /// Reads the rows of an answer.
    pub(super) fn read_all(value: Value<'_>) -> Vec<Self> {
        let rows = value.elements().into_iter().flatten().flatten();
        rows.take(ROWS_MAX).map(Self::read).collect()
    }

    pub(super) fn text(&self, column: &str) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| name == column);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Sets `field` if the row has the column and it says something.
    fn set(&self, column: &str, field: &mut String) {
        if let Some(text) = self.text(column)
            && field != text
        {
            text.clone_into(field);
        }
    }

    fn set_number<T: std::str::FromStr>(&self, column: &str, field: &mut T) {
        if let Some(number) = self.text(column).and_then(|text| text.parse().ok()) {
            *field = number;
        }
    }
}

/// Hosts are not trusted: nothing that does not show, and not without end.
fn clean(text: &str) -> String {
    let text = text.trim().chars().filter(|char| !is_hidden(*char));
    text.take(TEXT_CHARS_MAX).collect()
}

/// Takes in the answer to one detail query; unknown ones change nothing.
pub(super) fn apply(query: &str, rows: &[Row], host: &mut Host) {
    let Some(row) = rows.first() else {
        return;
    };
    match query {
        "os_version" => os_version(row, host),
        "system_info" => system_info(row, host),
        "osquery_info" => row.set("version", &mut host.details.osquery_version),
        "uptime" => row.set_number("total_seconds", &mut host.details.uptime_s),
        "network_interface" => network_interface(rows, host),
        "osquery_flags" => flags(rows, host),
        _ => {}
    }
}

fn os_version(row: &Row, host: &mut Host) {
    let details = &mut host.details;
    row.set("platform", &mut details.platform);
    row.set("platform_like", &mut details.platform_like);
    let Some(name) = row.text("name") else {
        return;
    };
    let number = |column| row.text(column).filter(|number| *number != "0");
    let version: Cow<'_, str> = match (row.text("version"), number("major"), number("minor")) {
        // `22.04.1 LTS (Jammy Jellyfish)`
        (Some(version), ..) => version.split(' ').next().unwrap_or(version).into(),
        (None, Some(major), Some(minor)) => format!("{major}.{minor}").into(),
        (None, major, _) => major.unwrap_or_default().into(),
    };
    details.os_version = format!("{name} {version}").trim_end().to_owned();
}

fn system_info(row: &Row, host: &mut Host) {
    let details = &mut host.details;
    row.set("hostname", &mut details.hostname);
    row.set("computer_name", &mut details.computer_name);
    row.set("uuid", &mut details.uuid);
    row.set("cpu_type", &mut details.cpu_type);
    row.set("cpu_brand", &mut details.cpu_brand);
    row.set("hardware_vendor", &mut details.hardware_vendor);
    row.set("hardware_model", &mut details.hardware_model);
    row.set("hardware_version", &mut details.hardware_version);
    row.set("hardware_serial", &mut details.hardware_serial);
    row.set_number("physical_memory", &mut details.memory);
    row.set_number("cpu_physical_cores", &mut details.cpu_physical_cores);
    row.set_number("cpu_logical_cores", &mut details.cpu_logical_cores);
}

/// The first IPv4 address, or the first of any kind.
fn network_interface(rows: &[Row], host: &mut Host) {
    let address = |row: &&Row| row.text("address").is_some_and(|text| text.contains('.'));
    let row = rows.iter().find(address).or(rows.first());
    if let Some(row) = row {
        row.set("address", &mut host.details.primary_ip);
        row.set("mac", &mut host.details.primary_mac);
    }
}

fn flags(rows: &[Row], host: &mut Host) {
    let value = |flag: &str| {
        let row = rows.iter().find(|row| row.text("name") == Some(flag))?;
        row.text("value")?
            .parse::<u32>()
            .ok()
            .filter(|seconds| *seconds > 0)
    };
    if let Some(interval) = value("distributed_interval") {
        host.distributed_interval = interval;
    }
    // Before osquery 4.4 the refresh had the plugin's name in it; its successor is `config_refresh`.
    if let Some(refresh) = value("config_refresh").or_else(|| value("config_tls_refresh")) {
        host.config_tls_refresh = refresh;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::entity::HostDetails;
    use crate::results::HostId;

    fn host() -> Host {
        Host {
            id: HostId(1),
            identifier: "i".into(),
            node_key_hash: String::new(),
            team: None,
            twin: 0,
            home: None,
            enrolled_at: 0,
            detailed_at: 0,
            labelled_at: 0,
            distributed_interval: 0,
            config_tls_refresh: 0,
            details: HostDetails::default(),
            labels: vec![],
        }
    }

    fn take(host: &mut Host, query: &str, rows: &str) {
        apply(query, &Row::read_all(Value::parse(rows).unwrap()), host);
    }

    #[test]
    fn answers_fill_the_details_and_missing_columns_leave_them() {
        let mut host = host();
        take(
            &mut host,
            "os_version",
            r#"[{"name":"Ubuntu","version":"22.04.1 LTS (Jammy)","platform":"ubuntu","platform_like":"debian"}]"#,
        );
        take(
            &mut host,
            "system_info",
            r#"[{"hostname":"web-1","computer_name":"Web","uuid":"U","physical_memory":8589934592,"cpu_logical_cores":"8"}]"#,
        );
        take(&mut host, "osquery_info", r#"[{"version":"5.12.1"}]"#);
        take(&mut host, "uptime", r#"[{"total_seconds":"77"}]"#);
        assert_eq!(host.details.os_version, "Ubuntu 22.04.1");
        assert_eq!(
            (host.details.memory, host.details.uptime_s),
            (8_589_934_592, 77)
        );
        let before = host.clone();
        take(
            &mut host,
            "system_info",
            r#"[{"hostname":"","uuid":null,"physical_memory":"much","cpu_logical_cores":[]}]"#,
        );
        take(&mut host, "os_version", "[]");
        take(&mut host, "uptime", r#"[5,"x",null]"#);
        take(&mut host, "no such query", r#"[{"hostname":"x"}]"#);
        assert_eq!(host, before);
    }

    #[test]
    fn a_version_is_put_together_when_it_is_not_told() {
        let mut host = host();
        take(
            &mut host,
            "os_version",
            r#"[{"name":"macOS","major":"14","minor":"2"}]"#,
        );
        assert_eq!(host.details.os_version, "macOS 14.2");
        take(
            &mut host,
            "os_version",
            r#"[{"name":"Arch Linux","major":"0","minor":"0"}]"#,
        );
        assert_eq!(host.details.os_version, "Arch Linux");
    }

    #[test]
    fn the_first_ipv4_address_is_the_primary_one() {
        let mut host = host();
        take(
            &mut host,
            "network_interface",
            r#"[{"address":"2001:db8::1","mac":"a"},{"address":"192.0.2.1","mac":"b"},{"address":"192.0.2.2","mac":"c"}]"#,
        );
        assert_eq!(
            (&*host.details.primary_ip, &*host.details.primary_mac),
            ("192.0.2.1", "b")
        );
        take(
            &mut host,
            "network_interface",
            r#"[{"address":"2001:db8::1","mac":"a"}]"#,
        );
        assert_eq!(host.details.primary_ip, "2001:db8::1");
    }

    #[test]
    fn flags_tell_the_intervals() {
        let mut host = host();
        take(
            &mut host,
            "osquery_flags",
            r#"[{"name":"distributed_interval","value":"30"},{"name":"config_tls_refresh","value":"60"},{"name":"config_refresh","value":"0"}]"#,
        );
        assert_eq!(
            (host.distributed_interval, host.config_tls_refresh),
            (30, 60)
        );
    }

    #[test]
    fn a_host_cannot_have_a_name_without_end_or_with_control_characters() {
        let mut host = host();
        let name = format!("a\\n\\u0000{}", "ü".repeat(1000));
        take(
            &mut host,
            "system_info",
            &format!(r#"[{{"hostname":"{name}"}}]"#),
        );
        assert_eq!(host.details.hostname.chars().count(), TEXT_CHARS_MAX);
        assert!(host.details.hostname.starts_with("aü"));
    }
}
