//! How a simulated host is connected.

use super::host::{Host, Platform};
use super::row::{Row, row};

/// The rows of a table of this module.
pub(super) fn rows(table: &str, host: &Host) -> Option<Vec<Row>> {
    Some(match table {
        "interface_addresses" => interface_addresses(host),
        "interface_details" => interface_details(host),
        "routes" => routes(host),
        "arp_cache" => arp_cache(host),
        "etc_hosts" => etc_hosts(host),
        "etc_services" => etc_services(),
        _ => return None,
    })
}

/// The names of the loopback and of the first network interface.
const fn interfaces(host: &Host) -> [&'static str; 2] {
    match host.platform {
        Platform::Darwin => ["lo0", "en0"],
        Platform::Windows => ["1", "12"],
        Platform::Ubuntu | Platform::CentOs => ["lo", "eth0"],
    }
}

fn interface_addresses(host: &Host) -> Vec<Row> {
    let entry = |name, address: &str, mask, kind| {
        row([
            ("interface", name),
            ("address", address),
            ("mask", mask),
            ("broadcast", ""),
            ("point_to_point", ""),
            ("type", kind),
        ])
    };
    let [lo, first] = interfaces(host);
    vec![
        entry(lo, "127.0.0.1", "255.0.0.0", "unknown"),
        entry(
            lo,
            "::1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "unknown",
        ),
        entry(first, &host.address(), "255.255.0.0", "dhcp"),
    ]
}

fn interface_details(host: &Host) -> Vec<Row> {
    let entry = |name, mac: &str, kind, mtu, bytes: u64| {
        row([
            ("interface", name),
            ("mac", mac),
            ("type", kind),
            ("mtu", mtu),
            ("metric", "0"),
            ("flags", if mtu == "1500" { "69699" } else { "65609" }),
            ("ipackets", &(bytes / 900).to_string()),
            ("opackets", &(bytes / 1_100).to_string()),
            ("ibytes", &bytes.to_string()),
            ("obytes", &(bytes / 3).to_string()),
        ])
    };
    let [lo, first] = interfaces(host);
    let bytes = host.pick(22, 1 << 36);
    vec![
        entry(lo, "00:00:00:00:00:00", "772", "65536", bytes / 1_000),
        entry(first, &host.hardware_address(), "6", "1500", bytes),
    ]
}

fn routes(host: &Host) -> Vec<Row> {
    let [_, first] = interfaces(host);
    let entry = |destination, mask, gateway| {
        row([
            ("destination", destination),
            ("netmask", mask),
            ("gateway", gateway),
            ("source", &host.address()),
            ("flags", "0"),
            ("interface", first),
            ("mtu", "1500"),
            ("metric", "100"),
            ("type", "gateway"),
        ])
    };
    vec![
        entry("0.0.0.0", "0", "10.20.0.1"),
        entry("10.20.0.0", "16", ""),
    ]
}

fn arp_cache(host: &Host) -> Vec<Row> {
    let [_, first] = interfaces(host);
    vec![row([
        ("address", "10.20.0.1"),
        ("mac", "02:00:0a:14:00:01"),
        ("interface", first),
        ("permanent", "0"),
    ])]
}

fn etc_hosts(host: &Host) -> Vec<Row> {
    let entry = |address, names: &str| row([("address", address), ("hostnames", names)]);
    vec![
        entry("127.0.0.1", "localhost"),
        entry("::1", "localhost"),
        entry("127.0.1.1", &host.hostname),
    ]
}

fn etc_services() -> Vec<Row> {
    let entry = |name, port| {
        row([
            ("name", name),
            ("port", port),
            ("protocol", "tcp"),
            ("aliases", ""),
        ])
    };
    vec![
        entry("ssh", "22"),
        entry("http", "80"),
        entry("https", "443"),
        entry("postgresql", "5432"),
    ]
}
