//! What the tables of a simulated host hold.

use super::host::{Host, Platform};

/// One row: column names and what they hold. osquery sends every value as text.
pub(super) type Row = Vec<(&'static str, String)>;

/// What changes while a host runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Seconds since the Unix epoch.
    pub(super) unix_s: u64,
    /// Seconds since the demo started.
    pub(super) running_s: u64,
}

type Fill = fn(&Host, Moment) -> Vec<Row>;

/// Every table, and on which platforms it exists (`None`: on all).
const TABLES: [(&str, Option<Platform>, Fill); 22] = [
    ("os_version", None, os_version),
    ("system_info", None, system_info),
    ("osquery_info", None, osquery_info),
    ("osquery_flags", None, osquery_flags),
    ("osquery_registry", None, osquery_registry),
    ("processes", None, processes),
    ("users", None, users),
    ("logged_in_users", None, logged_in_users),
    ("uptime", None, uptime),
    ("kernel_info", None, kernel_info),
    ("interface_addresses", None, interface_addresses),
    ("interface_details", None, interface_details),
    ("listening_ports", None, listening_ports),
    ("time", None, time),
    ("platform_info", None, platform_info),
    ("cpu_info", None, cpu_info),
    ("mounts", None, mounts),
    ("deb_packages", Some(Platform::Ubuntu), packages),
    ("rpm_packages", Some(Platform::CentOs), packages),
    ("apps", Some(Platform::Darwin), packages),
    ("programs", Some(Platform::Windows), packages),
    ("logical_drives", Some(Platform::Windows), logical_drives),
];

/// The rows of `table` on `host`; `None` when the host's osquery has no such table.
pub(super) fn rows(table: &str, host: &Host, moment: Moment) -> Option<Vec<Row>> {
    let (_, platform, fill) = TABLES.iter().find(|(name, ..)| *name == table)?;
    let exists = platform.is_none_or(|platform| platform == host.platform);
    exists.then(|| fill(host, moment))
}

fn row<const N: usize>(cells: [(&'static str, &str); N]) -> Row {
    cells
        .into_iter()
        .map(|(column, value)| (column, value.to_owned()))
        .collect()
}

fn os_version(host: &Host, _: Moment) -> Vec<Row> {
    let (name, version, build, platform, like) = match host.platform {
        Platform::Ubuntu => {
            let version = host.choose(1, &["22.04.5", "24.04.1", "24.04.2"]);
            ("Ubuntu", version, "", "ubuntu", "debian")
        }
        Platform::Darwin => {
            let version = host.choose(1, &["13.7.4", "14.7.4", "15.3.1"]);
            ("macOS", version, "24D70", "darwin", "darwin")
        }
        Platform::Windows => {
            let build = host.choose(1, &["19045", "22631", "26100"]);
            (
                "Microsoft Windows 11 Pro",
                "10.0",
                build,
                "windows",
                "windows",
            )
        }
        Platform::CentOs => ("CentOS Stream", "9", "", "centos", "rhel"),
    };
    let mut parts = version.split('.');
    let major = parts.next().unwrap_or("0");
    let minor = parts.next().unwrap_or("0");
    let patch = parts.next().unwrap_or("0");
    vec![row([
        ("name", name),
        ("version", version),
        ("major", major),
        ("minor", minor),
        ("patch", patch),
        ("build", build),
        ("platform", platform),
        ("platform_like", like),
        ("codename", ""),
        ("arch", architecture(host)),
    ])]
}

fn architecture(host: &Host) -> &'static str {
    match host.platform {
        Platform::Darwin => "arm64",
        Platform::Ubuntu | Platform::CentOs => "x86_64",
        Platform::Windows => "64-bit",
    }
}

fn system_info(host: &Host, _: Moment) -> Vec<Row> {
    let cores = host.choose(2, &["4", "8", "12", "16"]);
    let memory = host.choose(3, &["8589934592", "17179869184", "34359738368"]);
    let (vendor, model, brand) = match host.platform {
        Platform::Darwin => ("Apple Inc.", "Mac15,6", "Apple M3 Pro"),
        Platform::Windows => (
            "Dell Inc.",
            "Latitude 7450",
            "Intel(R) Core(TM) Ultra 7 165U",
        ),
        Platform::Ubuntu | Platform::CentOs => ("QEMU", "Standard PC", "AMD EPYC 9354"),
    };
    let serial = format!("DEMO{:06}", host.index + 1);
    vec![row([
        ("hostname", &host.hostname),
        ("computer_name", &host.hostname),
        ("local_hostname", &host.hostname),
        ("uuid", &host.uuid),
        ("cpu_type", architecture(host)),
        ("cpu_subtype", ""),
        ("cpu_brand", brand),
        ("cpu_physical_cores", cores),
        ("cpu_logical_cores", cores),
        ("physical_memory", memory),
        ("hardware_vendor", vendor),
        ("hardware_model", model),
        ("hardware_version", ""),
        ("hardware_serial", &serial),
    ])]
}

/// The version of osquery that the host runs.
fn agent_version(host: &Host) -> &'static str {
    host.choose(4, &["5.14.1", "5.15.0", "5.16.0"])
}

fn osquery_info(host: &Host, moment: Moment) -> Vec<Row> {
    let (platform, distro) = match host.platform {
        Platform::Ubuntu => ("ubuntu", "ubuntu"),
        Platform::Darwin => ("darwin", "10.14"),
        Platform::Windows => ("windows", "10"),
        Platform::CentOs => ("rhel", "centos7"),
    };
    let start = moment.unix_s.saturating_sub(moment.running_s).to_string();
    vec![row([
        ("pid", &(400 + host.pick(5, 900)).to_string()),
        ("uuid", &host.uuid),
        ("instance_id", &host.uuid),
        ("version", agent_version(host)),
        ("config_hash", "8f1a2c0d"),
        ("config_valid", "1"),
        ("extensions", "active"),
        ("build_platform", platform),
        ("build_distro", distro),
        ("start_time", &start),
        ("watcher", "398"),
        ("platform_mask", "9"),
    ])]
}

fn osquery_flags(_: &Host, _: Moment) -> Vec<Row> {
    let flag = |name, kind, value| {
        row([
            ("name", name),
            ("type", kind),
            ("description", ""),
            ("default_value", value),
            ("value", value),
            ("shell_only", "0"),
        ])
    };
    vec![
        flag("distributed_interval", "uint64", "10"),
        flag("config_refresh", "uint64", "60"),
        flag("config_tls_refresh", "uint64", "60"),
        flag("logger_tls_period", "uint64", "10"),
        flag("host_identifier", "string", "uuid"),
    ]
}

fn osquery_registry(host: &Host, _: Moment) -> Vec<Row> {
    let exists = TABLES
        .iter()
        .filter(|(_, platform, _)| platform.is_none_or(|platform| platform == host.platform));
    exists
        .map(|(name, ..)| {
            row([
                ("registry", "table"),
                ("name", name),
                ("owner_uuid", "0"),
                ("internal", "0"),
                ("active", "1"),
            ])
        })
        .collect()
}

fn processes(host: &Host, moment: Moment) -> Vec<Row> {
    let programs: &[(&str, &str)] = match host.platform {
        Platform::Ubuntu | Platform::CentOs => &[
            ("systemd", "/usr/lib/systemd/systemd"),
            ("sshd", "/usr/sbin/sshd"),
            ("cron", "/usr/sbin/cron"),
            ("nginx", "/usr/sbin/nginx"),
            ("postgres", "/usr/lib/postgresql/16/bin/postgres"),
            ("osqueryd", "/opt/osquery/bin/osqueryd"),
        ],
        Platform::Darwin => &[
            ("launchd", "/sbin/launchd"),
            ("WindowServer", "/System/Library/CoreServices/WindowServer"),
            ("Safari", "/Applications/Safari.app/Contents/MacOS/Safari"),
            ("zsh", "/bin/zsh"),
            (
                "osqueryd",
                "/opt/osquery/lib/osquery.app/Contents/MacOS/osqueryd",
            ),
        ],
        Platform::Windows => &[
            ("System", ""),
            ("svchost.exe", "C:\\Windows\\System32\\svchost.exe"),
            ("explorer.exe", "C:\\Windows\\explorer.exe"),
            (
                "OUTLOOK.EXE",
                "C:\\Program Files\\Microsoft Office\\OUTLOOK.EXE",
            ),
            ("osqueryd.exe", "C:\\Program Files\\osquery\\osqueryd.exe"),
        ],
    };
    let listed = programs.iter().enumerate().map(|(at, (name, path))| {
        let salt = 100 + at as u64;
        let pid = 1 + at as u64 * 211 + host.pick(salt, 200) * at.min(1) as u64;
        let resident = (4 + host.pick(salt + 50, 300)) << 20;
        let start = moment.unix_s.saturating_sub(uptime_s(host, moment)) + salt;
        row([
            ("pid", &pid.to_string()),
            ("name", name),
            ("path", path),
            ("cmdline", path),
            ("state", "S"),
            ("uid", if at == 0 { "0" } else { "501" }),
            ("gid", "20"),
            ("parent", if at == 0 { "0" } else { "1" }),
            ("resident_size", &resident.to_string()),
            ("total_size", &(resident * 3).to_string()),
            ("user_time", &(moment.running_s * 3 + salt).to_string()),
            ("system_time", &(moment.running_s + salt).to_string()),
            ("start_time", &start.to_string()),
            ("threads", &(1 + host.pick(salt + 9, 24)).to_string()),
        ])
    });
    listed.collect()
}

/// The person whose machine it is.
fn owner(host: &Host) -> &'static str {
    host.choose(6, &["amber", "basil", "clove", "dill", "fennel", "ginger"])
}

fn users(host: &Host, _: Moment) -> Vec<Row> {
    let (root, home, shell) = match host.platform {
        Platform::Windows => (
            "Administrator",
            "C:\\Users",
            "C:\\Windows\\System32\\cmd.exe",
        ),
        Platform::Darwin => ("root", "/Users", "/bin/zsh"),
        Platform::Ubuntu | Platform::CentOs => ("root", "/home", "/bin/bash"),
    };
    let account = |uid, name: &str| {
        row([
            ("uid", uid),
            ("gid", uid),
            ("uid_signed", uid),
            ("gid_signed", uid),
            ("username", name),
            ("description", ""),
            ("directory", &format!("{home}/{name}")),
            ("shell", shell),
            ("uuid", &host.uuid),
            ("type", ""),
        ])
    };
    vec![account("0", root), account("1000", owner(host))]
}

fn logged_in_users(host: &Host, moment: Moment) -> Vec<Row> {
    let since = moment.unix_s.saturating_sub(host.pick(7, 40_000));
    vec![row([
        ("type", "user"),
        ("user", owner(host)),
        ("tty", "pts/0"),
        ("host", "10.20.0.2"),
        ("time", &since.to_string()),
        ("pid", "2210"),
    ])]
}

/// Seconds since the host booted.
fn uptime_s(host: &Host, moment: Moment) -> u64 {
    3600 + host.pick(8, 40 * 86_400) + moment.running_s
}

fn uptime(host: &Host, moment: Moment) -> Vec<Row> {
    let total = uptime_s(host, moment);
    vec![row([
        ("days", &(total / 86_400).to_string()),
        ("hours", &(total / 3600 % 24).to_string()),
        ("minutes", &(total / 60 % 60).to_string()),
        ("seconds", &(total % 60).to_string()),
        ("total_seconds", &total.to_string()),
    ])]
}

fn kernel_info(host: &Host, _: Moment) -> Vec<Row> {
    let (version, path) = match host.platform {
        Platform::Ubuntu => (
            host.choose(9, &["6.8.0-51-generic", "6.8.0-60-generic"]),
            "/boot/vmlinuz",
        ),
        Platform::CentOs => ("5.14.0-547.el9.x86_64", "/boot/vmlinuz"),
        Platform::Darwin => ("24.3.0", "/System/Library/Kernels/kernel"),
        Platform::Windows => ("10.0.26100.3194", "C:\\Windows\\System32\\ntoskrnl.exe"),
    };
    vec![row([
        ("version", version),
        ("arguments", ""),
        ("path", path),
        ("device", ""),
    ])]
}

/// The name of the host's first network interface.
fn interface(host: &Host) -> &'static str {
    match host.platform {
        Platform::Darwin => "en0",
        Platform::Windows => "12",
        Platform::Ubuntu | Platform::CentOs => "eth0",
    }
}

fn interface_addresses(host: &Host, _: Moment) -> Vec<Row> {
    let entry = |name, address: &str, mask| {
        row([
            ("interface", name),
            ("address", address),
            ("mask", mask),
            ("broadcast", ""),
            ("point_to_point", ""),
            ("type", "dhcp"),
        ])
    };
    vec![
        entry("lo", "127.0.0.1", "255.0.0.0"),
        entry(interface(host), &host.address(), "255.255.0.0"),
    ]
}

fn interface_details(host: &Host, _: Moment) -> Vec<Row> {
    vec![row([
        ("interface", interface(host)),
        ("mac", &host.hardware_address()),
        ("type", "6"),
        ("mtu", "1500"),
        ("flags", "69699"),
    ])]
}

fn listening_ports(host: &Host, _: Moment) -> Vec<Row> {
    let entry = |pid, port| {
        row([
            ("pid", pid),
            ("port", port),
            ("protocol", "6"),
            ("family", "2"),
            ("address", "0.0.0.0"),
        ])
    };
    match host.platform {
        Platform::Windows => vec![entry("4", "445"), entry("908", "135")],
        Platform::Darwin => vec![entry("1", "22")],
        Platform::Ubuntu => vec![entry("212", "22"), entry("634", "443")],
        Platform::CentOs => vec![entry("212", "22"), entry("845", "5432")],
    }
}

fn time(_: &Host, moment: Moment) -> Vec<Row> {
    let day = moment.unix_s % 86_400;
    vec![row([
        ("hour", &(day / 3600).to_string()),
        ("minutes", &(day / 60 % 60).to_string()),
        ("seconds", &(day % 60).to_string()),
        ("timezone", "UTC"),
        ("local_timezone", "UTC"),
        ("unix_time", &moment.unix_s.to_string()),
    ])]
}

fn platform_info(host: &Host, _: Moment) -> Vec<Row> {
    let vendor = match host.platform {
        Platform::Darwin => "Apple Inc.",
        Platform::Windows => "Dell Inc.",
        Platform::Ubuntu | Platform::CentOs => "SeaBIOS",
    };
    vec![row([
        ("vendor", vendor),
        ("version", "1.16.3"),
        ("date", "04/01/2024"),
        ("revision", "1"),
    ])]
}

fn cpu_info(host: &Host, moment: Moment) -> Vec<Row> {
    let load = host.pick(10 + moment.unix_s / 10, 100);
    vec![row([
        ("device_id", "CPU0"),
        ("model", architecture(host)),
        ("number_of_cores", host.choose(2, &["4", "8", "12", "16"])),
        ("load_percentage", &load.to_string()),
    ])]
}

fn packages(host: &Host, _: Moment) -> Vec<Row> {
    let names: &[&str] = match host.platform {
        Platform::Ubuntu | Platform::CentOs => &["bash", "curl", "openssl", "nginx", "osquery"],
        Platform::Darwin => &["Safari.app", "Xcode.app", "Slack.app"],
        Platform::Windows => &["7-Zip", "Mozilla Firefox", "osquery"],
    };
    let listed = names.iter().enumerate().map(|(at, name)| {
        let minor = host.pick(300 + at as u64, 6);
        row([
            ("name", name),
            ("version", &format!("{}.{minor}", at + 1)),
            ("arch", architecture(host)),
            ("bundle_short_version", &format!("{}.{minor}", at + 1)),
        ])
    });
    listed.collect()
}

/// Bytes of the disk, and how many are free.
fn disk(host: &Host) -> (u64, u64) {
    let size = 256_000_000_000 << host.pick(11, 3);
    (size, size / 100 * (5 + host.pick(12, 80)))
}

fn logical_drives(host: &Host, _: Moment) -> Vec<Row> {
    let (size, free) = disk(host);
    vec![row([
        ("device_id", "C:"),
        ("type", "Local Fixed Disk"),
        ("free_space", &free.to_string()),
        ("size", &size.to_string()),
        ("file_system", "NTFS"),
        ("boot_partition", "1"),
    ])]
}

fn mounts(host: &Host, _: Moment) -> Vec<Row> {
    if host.platform == Platform::Windows {
        return Vec::new();
    }
    let (size, free) = disk(host);
    let block = 4096;
    vec![row([
        ("device", "/dev/vda1"),
        ("path", "/"),
        ("type", "ext4"),
        ("blocks_size", &block.to_string()),
        ("blocks", &(size / block).to_string()),
        ("blocks_free", &(free / block).to_string()),
        ("blocks_available", &(free / block).to_string()),
        ("flags", "rw,relatime"),
    ])]
}
