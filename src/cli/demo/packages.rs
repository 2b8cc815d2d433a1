//! What is installed on a simulated host.

use super::host::{Host, Platform};
use super::machine::agent_version;
use super::row::{Moment, Row, row};

/// The rows of a table of this module.
pub(super) fn rows(table: &str, host: &Host, moment: Moment) -> Option<Vec<Row>> {
    Some(match table {
        "deb_packages" => deb_packages(host),
        "apt_sources" => apt_sources(),
        "rpm_packages" => rpm_packages(host, moment),
        "yum_sources" => yum_sources(),
        "apps" => apps(host),
        "homebrew_packages" => homebrew_packages(host),
        "programs" => programs(host),
        "python_packages" => python_packages(host),
        _ => return None,
    })
}

/// One of a program's versions; most hosts have the newest.
pub(super) fn version<'a>(host: &Host, salt: u64, versions: &[&'a str]) -> &'a str {
    let newest = versions.last().copied().unwrap_or("");
    if host.pick(salt, 10) < 7 {
        newest
    } else {
        host.choose(salt + 1, versions)
    }
}

const fn processor(host: &Host) -> &'static str {
    match host.platform {
        Platform::Ubuntu => "amd64",
        _ => "x86_64",
    }
}

fn deb_packages(host: &Host) -> Vec<Row> {
    let package = |name, version: &str, section| {
        let revision = version.split_once('-').map_or("", |(_, revision)| revision);
        row([
            ("name", name),
            ("version", version),
            ("source", ""),
            (
                "size",
                &(100 + host.pick(name.len() as u64, 9_000)).to_string(),
            ),
            ("arch", processor(host)),
            ("revision", revision),
            ("status", "install ok installed"),
            ("maintainer", "Ubuntu Developers"),
            ("section", section),
            ("priority", "optional"),
        ])
    };
    vec![
        package("bash", "5.2.21-2ubuntu4", "shells"),
        package(
            "curl",
            version(host, 300, &["8.5.0-2ubuntu10.4", "8.5.0-2ubuntu10.6"]),
            "web",
        ),
        package(
            "libssl3t64",
            version(host, 302, &["3.0.13-0ubuntu3.4", "3.0.13-0ubuntu3.5"]),
            "libs",
        ),
        package("linux-base", "4.5ubuntu9", "kernel"),
        package(
            "nginx",
            version(host, 304, &["1.24.0-2ubuntu7.1", "1.24.0-2ubuntu7.3"]),
            "web",
        ),
        package(
            "openssh-server",
            version(host, 306, &["9.6p1-3ubuntu13.5", "9.6p1-3ubuntu13.8"]),
            "net",
        ),
        package(
            "openssl",
            version(host, 302, &["3.0.13-0ubuntu3.4", "3.0.13-0ubuntu3.5"]),
            "utils",
        ),
        package(
            "osquery",
            &format!("{}-1.linux", agent_version(host)),
            "default",
        ),
        package("python3", "3.12.3-0ubuntu2", "python"),
        package("rsyslog", "8.2312.0-3ubuntu9", "admin"),
    ]
}

fn apt_sources() -> Vec<Row> {
    vec![row([
        ("name", "archive.example noble/main"),
        ("source", "/etc/apt/sources.list"),
        ("base_uri", "https://archive.example/ubuntu"),
        ("release", "noble"),
        ("components", "main universe"),
        ("architectures", "amd64"),
    ])]
}

fn rpm_packages(host: &Host, moment: Moment) -> Vec<Row> {
    let package = |name, version: &str, release| {
        let installed = moment
            .unix_s
            .saturating_sub(86_400 * (20 + host.pick(310, 200)));
        row([
            ("name", name),
            ("version", version),
            ("release", release),
            ("source", &format!("{name}-{version}-{release}.src.rpm")),
            (
                "size",
                &(90_000 + host.pick(name.len() as u64, 9_000_000)).to_string(),
            ),
            ("arch", processor(host)),
            ("install_time", &installed.to_string()),
            ("vendor", "CentOS"),
        ])
    };
    vec![
        package("bash", "5.1.8", "9.el9"),
        package("curl", "7.76.1", version(host, 300, &["29.el9", "31.el9"])),
        package("kernel", "5.14.0", "547.el9"),
        package(
            "openssh-server",
            "8.7p1",
            version(host, 306, &["43.el9", "45.el9"]),
        ),
        package("openssl", "3.2.2", version(host, 302, &["6.el9", "7.el9"])),
        package("osquery", agent_version(host), "1.linux"),
        package(
            "postgresql16-server",
            version(host, 312, &["16.6", "16.8"]),
            "1PGDG.rhel9",
        ),
    ]
}

fn yum_sources() -> Vec<Row> {
    vec![row([
        ("name", "CentOS Stream 9 - BaseOS"),
        ("baseurl", "https://mirror.example/9-stream/BaseOS"),
        ("enabled", "1"),
        ("gpgcheck", "1"),
    ])]
}

fn apps(host: &Host) -> Vec<Row> {
    let app = |name: &str, id, version: &str| {
        row([
            ("name", &format!("{name}.app")),
            ("path", &format!("/Applications/{name}.app")),
            ("bundle_executable", name),
            ("bundle_identifier", id),
            ("bundle_name", name),
            ("bundle_short_version", version),
            ("bundle_version", version),
            ("bundle_package_type", "APPL"),
            ("display_name", name),
            ("minimum_system_version", "12.0"),
        ])
    };
    vec![
        app(
            "Safari",
            "com.apple.Safari",
            version(host, 320, &["17.6", "18.2", "18.3"]),
        ),
        app(
            "Xcode",
            "com.apple.dt.Xcode",
            version(host, 322, &["15.4", "16.2"]),
        ),
        app(
            "Firefox",
            "org.mozilla.firefox",
            version(host, 324, &["134.0", "135.0.1"]),
        ),
        app("osquery", "io.osquery.agent", agent_version(host)),
    ]
}

fn homebrew_packages(host: &Host) -> Vec<Row> {
    let package = |name: &str, version: &str| {
        row([
            ("name", name),
            ("path", &format!("/opt/homebrew/Cellar/{name}")),
            ("version", version),
            ("type", "formula"),
        ])
    };
    vec![
        package("git", version(host, 326, &["2.47.1", "2.48.1"])),
        package("jq", "1.7.1"),
        package("openssl@3", version(host, 328, &["3.4.0", "3.4.1"])),
    ]
}

fn programs(host: &Host) -> Vec<Row> {
    let program = |name, publisher, version: &str| {
        row([
            ("name", name),
            ("version", version),
            ("install_location", &format!("C:\\Program Files\\{name}")),
            ("language", "1033"),
            ("publisher", publisher),
            ("install_date", "20250114"),
        ])
    };
    vec![
        program(
            "7-Zip",
            "Igor Pavlov",
            version(host, 330, &["23.01", "24.09"]),
        ),
        program(
            "Microsoft Edge",
            "Microsoft Corporation",
            version(host, 332, &["132.0.2957.140", "133.0.3065.59"]),
        ),
        program(
            "Mozilla Firefox",
            "Mozilla",
            version(host, 324, &["134.0", "135.0.1"]),
        ),
        program("osquery", "osquery", agent_version(host)),
    ]
}

fn python_packages(host: &Host) -> Vec<Row> {
    let path = match host.platform {
        Platform::Windows => "C:\\Python312\\Lib\\site-packages",
        Platform::Darwin => "/opt/homebrew/lib/python3.12/site-packages",
        Platform::Ubuntu | Platform::CentOs => "/usr/lib/python3/dist-packages",
    };
    let package = |name, version| {
        row([
            ("name", name),
            ("version", version),
            ("path", path),
            ("directory", path),
        ])
    };
    vec![
        package("pip", version(host, 336, &["24.0", "25.0.1"])),
        package("requests", version(host, 338, &["2.31.0", "2.32.3"])),
    ]
}
