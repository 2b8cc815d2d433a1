//! What runs on a simulated host, for whom, and what it listens on.

use super::host::{Host, Platform};
use super::machine::{agent_version, uptime_s};
use super::people::{accounts, gid, owner, owner_uid};
use super::row::{Moment, Row, row};

/// The rows of a table of this module.
pub(super) fn rows(table: &str, host: &Host, moment: Moment) -> Option<Vec<Row>> {
    Some(match table {
        "processes" => processes(host, moment),
        "listening_ports" => listening_ports(host),
        "process_open_sockets" => process_open_sockets(host),
        "logged_in_users" => logged_in_users(host, moment),
        "last" => last(host, moment),
        "osquery_info" => osquery_info(host, moment),
        _ => return None,
    })
}

/// A program that runs: its name, path, whose it is (0 the host's owner), and the port that it listens on.
type Program = (&'static str, &'static str, u32, u16);

/// Stands for the host's owner.
const OWNER: u32 = u32::MAX;

const UBUNTU_RUNS: [Program; 9] = [
    ("systemd", "/usr/lib/systemd/systemd", 0, 0),
    ("systemd-journal", "/usr/lib/systemd/systemd-journald", 0, 0),
    ("rsyslogd", "/usr/sbin/rsyslogd", 104, 0),
    ("cron", "/usr/sbin/cron", 0, 0),
    ("sshd", "/usr/sbin/sshd", 0, 22),
    ("nginx", "/usr/sbin/nginx", 0, 443),
    ("nginx", "/usr/sbin/nginx", 33, 0),
    ("bash", "/usr/bin/bash", OWNER, 0),
    ("osqueryd", "/opt/osquery/bin/osqueryd", 0, 0),
];
const CENTOS_RUNS: [Program; 7] = [
    ("systemd", "/usr/lib/systemd/systemd", 0, 0),
    ("systemd-journal", "/usr/lib/systemd/systemd-journald", 0, 0),
    ("crond", "/usr/sbin/crond", 0, 0),
    ("sshd", "/usr/sbin/sshd", 0, 22),
    ("postgres", "/usr/pgsql-16/bin/postgres", 26, 5432),
    ("bash", "/usr/bin/bash", OWNER, 0),
    ("osqueryd", "/opt/osquery/bin/osqueryd", 0, 0),
];
const DARWIN_RUNS: [Program; 7] = [
    ("launchd", "/sbin/launchd", 0, 22),
    (
        "WindowServer",
        "/System/Library/CoreServices/WindowServer",
        88,
        0,
    ),
    ("locationd", "/usr/libexec/locationd", 205, 0),
    (
        "Finder",
        "/System/Library/CoreServices/Finder.app/Contents/MacOS/Finder",
        OWNER,
        0,
    ),
    (
        "Safari",
        "/Applications/Safari.app/Contents/MacOS/Safari",
        OWNER,
        0,
    ),
    ("zsh", "/bin/zsh", OWNER, 0),
    (
        "osqueryd",
        "/opt/osquery/lib/osquery.app/Contents/MacOS/osqueryd",
        0,
        0,
    ),
];
const WINDOWS_RUNS: [Program; 6] = [
    ("System", "", 18, 445),
    ("lsass.exe", "C:\\Windows\\System32\\lsass.exe", 18, 0),
    ("svchost.exe", "C:\\Windows\\System32\\svchost.exe", 20, 135),
    (
        "OUTLOOK.EXE",
        "C:\\Program Files\\Microsoft Office\\OUTLOOK.EXE",
        OWNER,
        0,
    ),
    ("explorer.exe", "C:\\Windows\\explorer.exe", OWNER, 0),
    (
        "osqueryd.exe",
        "C:\\Program Files\\osquery\\osqueryd\\osqueryd.exe",
        18,
        0,
    ),
];

/// What runs, the first process first; osquery last, and before it the owner's shell.
const fn programs(platform: Platform) -> &'static [Program] {
    match platform {
        Platform::Ubuntu => &UBUNTU_RUNS,
        Platform::CentOs => &CENTOS_RUNS,
        Platform::Darwin => &DARWIN_RUNS,
        Platform::Windows => &WINDOWS_RUNS,
    }
}

/// The pid of the program at a place; grows with the place.
fn pid(host: &Host, at: usize) -> u64 {
    match (host.platform, at) {
        (Platform::Windows, 0) => 4,
        (_, 0) => 1,
        (_, at) => 200 + at as u64 * 211 + host.pick(100 + at as u64, 200),
    }
}

/// The pid of osquery itself.
fn agent_pid(host: &Host) -> u64 {
    pid(host, programs(host.platform).len() - 1)
}

/// The pid of the owner's shell.
fn shell_pid(host: &Host) -> u64 {
    pid(host, programs(host.platform).len() - 2)
}

/// Whose a program is: user and group.
fn runs_as(host: &Host, uid: u32) -> (String, String) {
    let uid = if uid == OWNER { owner_uid(host) } else { uid };
    let account = accounts(host)
        .into_iter()
        .find(|account| account.uid == uid);
    let gid = account.map_or(uid, |account| gid(&account));
    (uid.to_string(), gid.to_string())
}

fn processes(host: &Host, moment: Moment) -> Vec<Row> {
    let programs = programs(host.platform).iter().enumerate();
    programs
        .map(|(at, (name, path, uid, _))| {
            let salt = 100 + at as u64;
            let resident = (4 + host.pick(salt + 50, 300)) << 20;
            let start = moment.unix_s.saturating_sub(uptime_s(host, moment)) + salt;
            let (uid, gid) = runs_as(host, *uid);
            let parent = if at == 0 { 0 } else { pid(host, 0) };
            row([
                ("pid", &pid(host, at).to_string()),
                ("name", name),
                ("path", path),
                ("cmdline", path),
                (
                    "state",
                    if host.platform == Platform::Windows {
                        "STILL_ACTIVE"
                    } else {
                        "S"
                    },
                ),
                ("cwd", "/"),
                ("root", "/"),
                ("uid", &uid),
                ("gid", &gid),
                ("euid", &uid),
                ("egid", &gid),
                ("on_disk", if path.is_empty() { "-1" } else { "1" }),
                ("wired_size", "0"),
                ("resident_size", &resident.to_string()),
                ("total_size", &(resident * 3).to_string()),
                ("user_time", &(moment.running_s * 3 + salt).to_string()),
                ("system_time", &(moment.running_s + salt).to_string()),
                ("start_time", &start.to_string()),
                ("parent", &parent.to_string()),
                ("pgroup", &pid(host, at).to_string()),
                ("threads", &(1 + host.pick(salt + 9, 24)).to_string()),
                ("nice", "0"),
            ])
        })
        .collect()
}

fn listening_ports(host: &Host) -> Vec<Row> {
    let programs = programs(host.platform).iter().enumerate();
    programs
        .filter(|(_, (.., port))| *port > 0)
        .map(|(at, (.., port))| {
            let own = *port == 5432;
            row([
                ("pid", &pid(host, at).to_string()),
                ("port", &port.to_string()),
                ("protocol", "6"),
                ("family", "2"),
                ("address", if own { "127.0.0.1" } else { "0.0.0.0" }),
                ("fd", &(3 + at).to_string()),
                (
                    "socket",
                    &(20_000 + host.pick(400 + at as u64, 9_000)).to_string(),
                ),
                ("path", ""),
            ])
        })
        .collect()
}

fn process_open_sockets(host: &Host) -> Vec<Row> {
    vec![row([
        ("pid", &agent_pid(host).to_string()),
        ("fd", "9"),
        ("socket", &(30_000 + host.pick(20, 9_000)).to_string()),
        ("family", "2"),
        ("protocol", "6"),
        ("local_address", &host.address()),
        ("remote_address", "10.20.0.2"),
        ("local_port", &(40_000 + host.pick(21, 20_000)).to_string()),
        ("remote_port", "443"),
        ("state", "ESTABLISHED"),
    ])]
}

fn logged_in_users(host: &Host, moment: Moment) -> Vec<Row> {
    let since = moment.unix_s.saturating_sub(host.pick(7, 40_000));
    let (tty, from) = match host.platform {
        Platform::Windows | Platform::Darwin => ("console", ""),
        Platform::Ubuntu | Platform::CentOs => ("pts/0", "10.20.0.2"),
    };
    let shell = shell_pid(host).to_string();
    vec![row([
        (
            "type",
            if host.platform == Platform::Windows {
                "active"
            } else {
                "user"
            },
        ),
        ("user", owner(host)),
        ("tty", tty),
        ("host", from),
        ("time", &since.to_string()),
        ("pid", &shell),
    ])]
}

fn last(host: &Host, moment: Moment) -> Vec<Row> {
    let since = moment.unix_s.saturating_sub(host.pick(7, 40_000));
    let shell = shell_pid(host).to_string();
    vec![row([
        ("username", owner(host)),
        ("tty", "pts/0"),
        ("pid", &shell),
        ("type", "7"),
        ("type_name", "user-process"),
        ("time", &since.to_string()),
        ("host", "10.20.0.2"),
    ])]
}

fn osquery_info(host: &Host, moment: Moment) -> Vec<Row> {
    let (platform, distro, mask) = match host.platform {
        Platform::Ubuntu => ("ubuntu", "ubuntu", "9"),
        Platform::Darwin => ("darwin", "10.14", "21"),
        Platform::Windows => ("windows", "10", "2"),
        Platform::CentOs => ("rhel", "centos7", "9"),
    };
    let start = moment.unix_s.saturating_sub(moment.running_s).to_string();
    vec![row([
        ("pid", &agent_pid(host).to_string()),
        ("uuid", &host.uuid),
        ("instance_id", &host.uuid),
        ("version", agent_version(host)),
        ("config_hash", "8f1a2c0d"),
        ("config_valid", "1"),
        ("extensions", "active"),
        ("build_platform", platform),
        ("build_distro", distro),
        ("start_time", &start),
        ("watcher", "1"),
        ("platform_mask", mask),
    ])]
}
