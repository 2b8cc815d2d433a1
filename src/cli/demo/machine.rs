//! A simulated host itself: its system, hardware and disks.

use super::host::{Host, Platform};
use super::row::{Moment, Row, row};
use super::schema::TABLES;

/// The rows of a table of this module.
pub(super) fn rows(table: &str, host: &Host, moment: Moment) -> Option<Vec<Row>> {
    Some(match table {
        "os_version" => os_version(host),
        "system_info" => system_info(host),
        "osquery_flags" => osquery_flags(),
        "osquery_registry" => osquery_registry(host),
        "uptime" => uptime(host, moment),
        "kernel_info" => kernel_info(host),
        "time" => time(moment),
        "platform_info" => platform_info(host),
        "cpu_info" => cpu_info(host, moment),
        "memory_info" => memory_info(host),
        "load_average" => load_average(host, moment),
        "mounts" => mounts(host),
        "block_devices" => block_devices(host),
        "logical_drives" => logical_drives(host),
        "disk_encryption" => disk_encryption(host),
        "bitlocker_info" => bitlocker_info(host),
        _ => return None,
    })
}

/// An operating system that some of the hosts run: its version, build, code name and kernel belong together.
struct System {
    name: &'static str,
    version: &'static str,
    build: &'static str,
    codename: &'static str,
    kernel: &'static str,
}

const fn known(
    name: &'static str,
    version: &'static str,
    build: &'static str,
    codename: &'static str,
    kernel: &'static str,
) -> System {
    System {
        name,
        version,
        build,
        codename,
        kernel,
    }
}

const UBUNTU: [System; 3] = [
    known(
        "Ubuntu",
        "22.04.5 LTS (Jammy Jellyfish)",
        "",
        "jammy",
        "5.15.0-131-generic",
    ),
    known(
        "Ubuntu",
        "24.04.1 LTS (Noble Numbat)",
        "",
        "noble",
        "6.8.0-51-generic",
    ),
    known(
        "Ubuntu",
        "24.04.2 LTS (Noble Numbat)",
        "",
        "noble",
        "6.8.0-60-generic",
    ),
];
const DARWIN: [System; 3] = [
    known("macOS", "13.7.4", "22H420", "Ventura", "22.6.0"),
    known("macOS", "14.7.4", "23H420", "Sonoma", "23.6.0"),
    known("macOS", "15.3.1", "24D70", "Sequoia", "24.3.0"),
];
const WINDOWS: [System; 3] = [
    known(
        "Microsoft Windows 10 Pro",
        "10.0.19045",
        "19045",
        "22H2",
        "10.0.19041.5486",
    ),
    known(
        "Microsoft Windows 11 Pro",
        "10.0.22631",
        "22631",
        "23H2",
        "10.0.22621.4890",
    ),
    known(
        "Microsoft Windows 11 Pro",
        "10.0.26100",
        "26100",
        "24H2",
        "10.0.26100.3194",
    ),
];
const CENTOS: [System; 1] = [known("CentOS Stream", "9", "", "", "5.14.0-547.el9.x86_64")];

fn system(host: &Host) -> &'static System {
    let systems: &[System] = match host.platform {
        Platform::Ubuntu => &UBUNTU,
        Platform::Darwin => &DARWIN,
        Platform::Windows => &WINDOWS,
        Platform::CentOs => &CENTOS,
    };
    let at = host.pick(1, systems.len() as u64);
    let at = usize::try_from(at).unwrap_or(0);
    systems.get(at).unwrap_or(&systems[0])
}

fn os_version(host: &Host) -> Vec<Row> {
    let system = system(host);
    let (platform, like) = match host.platform {
        Platform::Ubuntu => ("ubuntu", "debian"),
        Platform::Darwin => ("darwin", "darwin"),
        Platform::Windows => ("windows", "windows"),
        Platform::CentOs => ("centos", "rhel"),
    };
    let number = system.version.split(' ').next().unwrap_or("");
    let mut parts = number.split('.');
    let mut part = || parts.next().unwrap_or("0");
    let (major, minor, patch) = (part(), part(), part());
    vec![row([
        ("name", system.name),
        ("version", system.version),
        ("major", major),
        ("minor", minor),
        ("patch", patch),
        ("build", system.build),
        ("platform", platform),
        ("platform_like", like),
        ("codename", system.codename),
        ("arch", architecture(host)),
    ])]
}

pub(super) fn architecture(host: &Host) -> &'static str {
    match host.platform {
        Platform::Darwin => "arm64",
        Platform::Ubuntu | Platform::CentOs => "x86_64",
        Platform::Windows => "64-bit",
    }
}

fn system_info(host: &Host) -> Vec<Row> {
    let cores = host.choose(2, &["4", "8", "12", "16"]);
    let memory = memory(host);
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
pub(super) fn agent_version(host: &Host) -> &'static str {
    host.choose(4, &["5.14.1", "5.15.0", "5.16.0"])
}

fn osquery_flags() -> Vec<Row> {
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

fn osquery_registry(host: &Host) -> Vec<Row> {
    let entry = |registry, name| {
        row([
            ("registry", registry),
            ("name", name),
            ("owner_uuid", "0"),
            ("internal", "0"),
            ("active", "1"),
        ])
    };
    let tables = TABLES.iter().filter(|(_, on, _)| on.has(host.platform));
    let mut rows: Vec<Row> = tables.map(|(name, ..)| entry("table", name)).collect();
    for (registry, name) in [
        ("config", "tls"),
        ("distributed", "tls"),
        ("enroll", "tls"),
        ("logger", "tls"),
    ] {
        rows.push(entry(registry, name));
    }
    rows
}

/// Seconds since the host booted.
pub(super) fn uptime_s(host: &Host, moment: Moment) -> u64 {
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

fn kernel_info(host: &Host) -> Vec<Row> {
    let path = match host.platform {
        Platform::Ubuntu | Platform::CentOs => "/boot/vmlinuz",
        Platform::Darwin => "/System/Library/Kernels/kernel",
        Platform::Windows => "C:\\Windows\\System32\\ntoskrnl.exe",
    };
    vec![row([
        ("version", system(host).kernel),
        ("arguments", ""),
        ("path", path),
        ("device", ""),
    ])]
}

fn time(moment: Moment) -> Vec<Row> {
    let day = moment.unix_s % 86_400;
    let stamp = std::time::UNIX_EPOCH + std::time::Duration::from_secs(moment.unix_s);
    // `Sun, 06 Nov 1994 08:49:37 GMT`
    let text = httpdate::fmt_http_date(stamp);
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or("");
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months.find(part(8, 11)).map_or(1, |at| at / 3 + 1);
    let weekday = match part(0, 3) {
        "Mon" => "Monday",
        "Tue" => "Tuesday",
        "Wed" => "Wednesday",
        "Thu" => "Thursday",
        "Fri" => "Friday",
        "Sat" => "Saturday",
        _ => "Sunday",
    };
    let date = format!("{}-{month:02}-{}", part(12, 16), part(5, 7));
    let iso = format!("{date}T{}Z", part(17, 25));
    vec![row([
        ("weekday", weekday),
        ("year", part(12, 16)),
        ("month", &month.to_string()),
        ("day", part(5, 7).trim_start_matches('0')),
        ("hour", &(day / 3600).to_string()),
        ("minutes", &(day / 60 % 60).to_string()),
        ("seconds", &(day % 60).to_string()),
        ("timezone", "UTC"),
        ("local_timezone", "UTC"),
        ("unix_time", &moment.unix_s.to_string()),
        ("timestamp", &text),
        ("datetime", &iso),
        ("iso_8601", &iso),
    ])]
}

fn platform_info(host: &Host) -> Vec<Row> {
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

/// Bytes of the disk, and how many are free.
fn disk(host: &Host) -> (u64, u64) {
    let size = 256_000_000_000 << host.pick(11, 3);
    (size, size / 100 * (5 + host.pick(12, 80)))
}

fn logical_drives(host: &Host) -> Vec<Row> {
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

fn mounts(host: &Host) -> Vec<Row> {
    let (size, free) = disk(host);
    let block = 4096;
    let (device, kind, flags) = match host.platform {
        Platform::Darwin => ("/dev/disk3s1s1", "apfs", "75534352"),
        _ => ("/dev/vda1", "ext4", "rw,relatime"),
    };
    vec![row([
        ("device", device),
        ("device_alias", device),
        ("path", "/"),
        ("type", kind),
        ("blocks_size", &block.to_string()),
        ("blocks", &(size / block).to_string()),
        ("blocks_free", &(free / block).to_string()),
        ("blocks_available", &(free / block).to_string()),
        ("flags", flags),
    ])]
}

fn block_devices(host: &Host) -> Vec<Row> {
    let (size, _) = disk(host);
    let (name, vendor) = match host.platform {
        Platform::Darwin => ("/dev/disk0", "APPLE"),
        _ => ("/dev/vda", "0x1af4"),
    };
    vec![row([
        ("name", name),
        ("vendor", vendor),
        ("size", &(size / 512).to_string()),
        ("block_size", "512"),
    ])]
}

/// Whether the host's disk is encrypted: seven in ten are.
fn is_encrypted(host: &Host) -> bool {
    host.pick(13, 10) < 7
}

fn disk_encryption(host: &Host) -> Vec<Row> {
    let encrypted = is_encrypted(host);
    let (name, kind) = match host.platform {
        Platform::Darwin => ("/dev/disk3s1s1", "APFS Encryption"),
        _ => ("/dev/vda1", "crypto_LUKS"),
    };
    vec![row([
        ("name", name),
        ("encrypted", if encrypted { "1" } else { "0" }),
        ("type", if encrypted { kind } else { "" }),
        (
            "encryption_status",
            if encrypted {
                "encrypted"
            } else {
                "not encrypted"
            },
        ),
    ])]
}

fn bitlocker_info(host: &Host) -> Vec<Row> {
    let on = if is_encrypted(host) { "1" } else { "0" };
    vec![row([
        ("device_id", "\\\\?\\Volume{5c1b}\\"),
        ("drive_letter", "C:"),
        ("conversion_status", on),
        ("protection_status", on),
        (
            "encryption_method",
            if on == "1" { "XTS_AES_128" } else { "None" },
        ),
        ("percentage_encrypted", if on == "1" { "100" } else { "0" }),
        ("lock_status", "0"),
    ])]
}

fn memory_info(host: &Host) -> Vec<Row> {
    let total: u64 = memory(host).parse().unwrap_or(0);
    let free = total / 100 * (5 + host.pick(14, 60));
    vec![row([
        ("memory_total", &total.to_string()),
        ("memory_free", &free.to_string()),
        ("memory_available", &(free + total / 10).to_string()),
        ("buffers", &(total / 50).to_string()),
        ("cached", &(total / 20).to_string()),
        ("swap_total", "0"),
        ("swap_free", "0"),
    ])]
}

fn load_average(host: &Host, moment: Moment) -> Vec<Row> {
    let load = |period, salt| {
        let average = host.pick(salt + moment.unix_s / 60, 400);
        row([
            ("period", period),
            (
                "average",
                &format!("{}.{:02}", average / 100, average % 100),
            ),
        ])
    };
    vec![load("1m", 15), load("5m", 16), load("15m", 17)]
}

/// Bytes of memory.
fn memory(host: &Host) -> &'static str {
    host.choose(3, &["8589934592", "17179869184", "34359738368"])
}
