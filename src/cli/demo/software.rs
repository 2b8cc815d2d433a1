//! What is set up on a simulated host beside its packages.

use super::host::{Host, Platform};
use super::packages::{self, version};
use super::row::{Moment, Row, row};

/// The rows of a table of this module.
pub(super) fn rows(table: &str, host: &Host, moment: Moment) -> Option<Vec<Row>> {
    Some(match table {
        "services" => services(),
        "patches" => patches(host),
        "chrome_extensions" => chrome_extensions(host),
        "kernel_modules" => kernel_modules(),
        "systemd_units" => systemd_units(),
        "startup_items" => startup_items(host),
        "launchd" => launchd(),
        "crontab" => crontab(),
        "sudoers" => sudoers(),
        "suid_bin" => suid_bin(),
        "certificates" => certificates(),
        "sip_config" => vec![row([
            ("config_flag", "sip"),
            ("enabled", "1"),
            ("enabled_nvram", "1"),
        ])],
        "gatekeeper" => vec![row([
            ("assessments_enabled", "1"),
            ("dev_id_enabled", "1"),
            ("version", "181"),
        ])],
        "usb_devices" => usb_devices(),
        "file" => file(host, moment),
        _ => return packages::rows(table, host, moment),
    })
}

fn services() -> Vec<Row> {
    let service = |name, display, path, start, status| {
        row([
            ("name", name),
            ("service_type", "OWN_PROCESS"),
            ("display_name", display),
            ("status", status),
            ("start_type", start),
            ("path", path),
            ("user_account", "LocalSystem"),
        ])
    };
    vec![
        service(
            "osqueryd",
            "osqueryd",
            "C:\\Program Files\\osquery\\osqueryd\\osqueryd.exe",
            "AUTO_START",
            "RUNNING",
        ),
        service(
            "Spooler",
            "Print Spooler",
            "C:\\Windows\\System32\\spoolsv.exe",
            "AUTO_START",
            "RUNNING",
        ),
        service(
            "wuauserv",
            "Windows Update",
            "C:\\Windows\\System32\\svchost.exe -k netsvcs",
            "DEMAND_START",
            "STOPPED",
        ),
    ]
}

fn patches(host: &Host) -> Vec<Row> {
    let patch = |id| {
        row([
            ("csname", &host.hostname),
            ("hotfix_id", id),
            ("caption", "https://support.example/help"),
            ("description", "Security Update"),
            ("installed_by", "NT AUTHORITY\\SYSTEM"),
            ("installed_on", "2/12/2025"),
        ])
    };
    let mut patches = vec![patch("KB5050187")];
    // Some have missed the last one.
    if host.pick(334, 10) < 8 {
        patches.push(patch("KB5051987"));
    }
    patches
}

fn chrome_extensions(host: &Host) -> Vec<Row> {
    if host.pick(340, 2) == 0 || matches!(host.platform, Platform::Ubuntu | Platform::CentOs) {
        return Vec::new();
    }
    let uid = if host.platform == Platform::Darwin {
        "501"
    } else {
        "1001"
    };
    vec![row([
        ("browser_type", "chrome"),
        ("uid", uid),
        ("name", "uBlock Origin Lite"),
        ("profile", "Default"),
        ("identifier", "ddkjiahejlhfcafbddmgiahcphecmpfh"),
        ("version", version(host, 342, &["2025.1.6", "2025.2.1"])),
        ("state", "1"),
        ("from_webstore", "true"),
    ])]
}

fn kernel_modules() -> Vec<Row> {
    let module = |name, size, used_by| {
        row([
            ("name", name),
            ("size", size),
            ("used_by", used_by),
            ("status", "Live"),
            ("address", "0x0000000000000000"),
        ])
    };
    vec![
        module("virtio_net", "118784", "-"),
        module("nf_tables", "376832", "nft_compat"),
        module("nft_compat", "20480", "-"),
        module("overlay", "212992", "-"),
    ]
}

fn systemd_units() -> Vec<Row> {
    let unit = |id: &str, description, active, sub| {
        row([
            ("id", id),
            ("description", description),
            ("load_state", "loaded"),
            ("active_state", active),
            ("sub_state", sub),
            ("fragment_path", &format!("/usr/lib/systemd/system/{id}")),
            ("unit_file_state", "enabled"),
        ])
    };
    vec![
        unit(
            "ssh.service",
            "OpenBSD Secure Shell server",
            "active",
            "running",
        ),
        unit(
            "osqueryd.service",
            "The osquery Daemon",
            "active",
            "running",
        ),
        unit(
            "systemd-journald.service",
            "Journal Service",
            "active",
            "running",
        ),
        unit(
            "apt-daily.timer",
            "Daily apt download activities",
            "active",
            "waiting",
        ),
    ]
}

fn startup_items(host: &Host) -> Vec<Row> {
    let (name, path) = match host.platform {
        Platform::Windows => (
            "OneDrive",
            "C:\\Program Files\\Microsoft OneDrive\\OneDrive.exe",
        ),
        Platform::Darwin => ("Backup", "/Applications/Backup.app"),
        Platform::Ubuntu | Platform::CentOs => ("osqueryd", "/etc/init.d/osqueryd"),
    };
    vec![row([
        ("name", name),
        ("path", path),
        ("type", "Startup Item"),
        ("status", "enabled"),
    ])]
}

fn launchd() -> Vec<Row> {
    vec![row([
        ("path", "/Library/LaunchDaemons/io.osquery.agent.plist"),
        ("name", "io.osquery.agent.plist"),
        ("label", "io.osquery.agent"),
        (
            "program",
            "/opt/osquery/lib/osquery.app/Contents/MacOS/osqueryd",
        ),
        ("run_at_load", "1"),
        ("keep_alive", "1"),
    ])]
}

fn crontab() -> Vec<Row> {
    vec![row([
        ("event", ""),
        ("minute", "17"),
        ("hour", "*"),
        ("day_of_month", "*"),
        ("month", "*"),
        ("day_of_week", "*"),
        (
            "command",
            "root cd / && run-parts --report /etc/cron.hourly",
        ),
        ("path", "/etc/crontab"),
    ])]
}

fn sudoers() -> Vec<Row> {
    let rule = |header, details| {
        row([
            ("source", "/etc/sudoers"),
            ("header", header),
            ("rule_details", details),
        ])
    };
    vec![
        rule("root", "ALL=(ALL:ALL) ALL"),
        rule("%sudo", "ALL=(ALL:ALL) ALL"),
    ]
}

fn suid_bin() -> Vec<Row> {
    let binary = |path| {
        row([
            ("path", path),
            ("username", "root"),
            ("groupname", "root"),
            ("permissions", "S"),
        ])
    };
    vec![
        binary("/usr/bin/passwd"),
        binary("/usr/bin/sudo"),
        binary("/usr/bin/su"),
    ]
}

fn certificates() -> Vec<Row> {
    vec![row([
        ("common_name", "Example Root CA"),
        ("subject", "/C=NO/O=Example/CN=Example Root CA"),
        ("issuer", "/C=NO/O=Example/CN=Example Root CA"),
        ("ca", "1"),
        ("self_signed", "1"),
        ("not_valid_before", "1577836800"),
        ("not_valid_after", "2208988800"),
        ("signing_algorithm", "sha256WithRSAEncryption"),
        ("key_algorithm", "rsaEncryption"),
        ("key_strength", "4096"),
        ("sha1", "2f8c1a5d0e9b7c6a4d3f2e1b0a9c8d7e6f5a4b3c"),
    ])]
}

fn usb_devices() -> Vec<Row> {
    vec![row([
        ("usb_address", "1"),
        ("usb_port", "1"),
        ("vendor", "Logitech"),
        ("vendor_id", "046d"),
        ("model", "USB Receiver"),
        ("model_id", "c52b"),
        ("removable", "1"),
    ])]
}

/// A real host needs a path to look at; here a few files are there for every query.
fn file(host: &Host, moment: Moment) -> Vec<Row> {
    let paths: &[(&str, &str)] = match host.platform {
        Platform::Windows => &[("C:\\Windows\\System32\\drivers\\etc", "hosts")],
        _ => &[("/etc", "hosts"), ("/etc", "passwd"), ("/etc", "ssh")],
    };
    let files = paths.iter().map(|(directory, name)| {
        let between = if host.platform == Platform::Windows {
            "\\"
        } else {
            "/"
        };
        let modified = moment
            .unix_s
            .saturating_sub(host.pick(350, 10_000_000))
            .to_string();
        row([
            ("path", &format!("{directory}{between}{name}")),
            ("directory", directory),
            ("filename", name),
            ("uid", "0"),
            ("gid", "0"),
            ("mode", if *name == "ssh" { "0755" } else { "0644" }),
            ("size", &(200 + host.pick(351, 3_000)).to_string()),
            ("mtime", &modified),
            (
                "type",
                if *name == "ssh" {
                    "directory"
                } else {
                    "regular"
                },
            ),
        ])
    });
    files.collect()
}
