//! Who has an account on a simulated host.

use super::host::{Host, Platform};
use super::row::{Row, row};

/// The rows of a table of this module.
pub(super) fn rows(table: &str, host: &Host) -> Option<Vec<Row>> {
    Some(match table {
        "users" => users(host),
        "groups" => groups(host),
        "user_groups" => user_groups(host),
        "authorized_keys" => authorized_keys(host),
        _ => return None,
    })
}

/// An account, and the group of the same kind.
pub(super) struct Account {
    pub(super) uid: u32,
    name: &'static str,
    group: &'static str,
    about: &'static str,
    home: String,
    shell: &'static str,
}

/// The person whose machine it is.
pub(super) fn owner(host: &Host) -> &'static str {
    host.choose(6, &["amber", "basil", "clove", "dill", "fennel", "ginger"])
}

/// The number of the first person of a platform.
pub(super) const fn owner_uid(host: &Host) -> u32 {
    match host.platform {
        Platform::Ubuntu | Platform::CentOs => 1000,
        Platform::Darwin => 501,
        Platform::Windows => 1001,
    }
}

/// An account that every host of a platform has: number, name, group, description, home, shell.
type Known = (
    u32,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const NOLOGIN: &str = "/usr/sbin/nologin";
const CMD: &str = "C:\\Windows\\system32\\cmd.exe";

const ON_UBUNTU: [Known; 5] = [
    (0, "root", "root", "root", "/root", "/bin/bash"),
    (1, "daemon", "daemon", "daemon", "/usr/sbin", NOLOGIN),
    (33, "www-data", "www-data", "www-data", "/var/www", NOLOGIN),
    (104, "syslog", "syslog", "", "/home/syslog", NOLOGIN),
    (110, "sshd", "nogroup", "", "/run/sshd", NOLOGIN),
];
const ON_CENTOS: [Known; 4] = [
    (0, "root", "root", "root", "/root", "/bin/bash"),
    (2, "daemon", "daemon", "daemon", "/sbin", NOLOGIN),
    (
        26,
        "postgres",
        "postgres",
        "PostgreSQL Server",
        "/var/lib/pgsql",
        "/bin/bash",
    ),
    (
        74,
        "sshd",
        "sshd",
        "Privilege-separated SSH",
        "/usr/share/empty.sshd",
        NOLOGIN,
    ),
];
const ON_DARWIN: [Known; 3] = [
    (
        0,
        "root",
        "wheel",
        "System Administrator",
        "/var/root",
        "/bin/sh",
    ),
    (
        88,
        "_windowserver",
        "_windowserver",
        "WindowServer",
        "/var/empty",
        "/usr/bin/false",
    ),
    (
        205,
        "_locationd",
        "_locationd",
        "Location Daemon",
        "/var/db/locationd",
        "/usr/bin/false",
    ),
];
const ON_WINDOWS: [Known; 3] = [
    (
        18,
        "SYSTEM",
        "Administrators",
        "",
        "C:\\Windows\\system32\\config\\systemprofile",
        "",
    ),
    (
        20,
        "NETWORK SERVICE",
        "Users",
        "",
        "C:\\Windows\\ServiceProfiles\\NetworkService",
        "",
    ),
    (
        500,
        "Administrator",
        "Administrators",
        "Built-in account",
        "C:\\Users\\Administrator",
        CMD,
    ),
];

/// The accounts of a host, the most powerful first and its owner last.
pub(super) fn accounts(host: &Host) -> Vec<Account> {
    let (known, home, group, shell): (&[Known], _, _, _) = match host.platform {
        Platform::Ubuntu => (&ON_UBUNTU, "/home/", "users", "/bin/bash"),
        Platform::CentOs => (&ON_CENTOS, "/home/", "users", "/bin/bash"),
        Platform::Darwin => (&ON_DARWIN, "/Users/", "staff", "/bin/zsh"),
        Platform::Windows => (&ON_WINDOWS, "C:\\Users\\", "Users", CMD),
    };
    let known = known
        .iter()
        .map(|(uid, name, group, about, home, shell)| Account {
            uid: *uid,
            name,
            group,
            about,
            home: (*home).to_owned(),
            shell,
        });
    let own = Account {
        uid: owner_uid(host),
        name: owner(host),
        group,
        about: "",
        home: format!("{home}{}", owner(host)),
        shell,
    };
    known.chain([own]).collect()
}

/// The number of a group; groups of one account have its number.
pub(super) fn gid(account: &Account) -> u32 {
    match account.group {
        "root" | "wheel" => 0,
        "staff" => 20,
        "users" => 100,
        "Administrators" => 544,
        "Users" => 545,
        "nogroup" => 65_534,
        _ => account.uid,
    }
}

fn users(host: &Host) -> Vec<Row> {
    let accounts = accounts(host).into_iter();
    accounts
        .map(|account| {
            let (uid, gid) = (account.uid.to_string(), gid(&account).to_string());
            let kind = if host.platform == Platform::Windows {
                "local"
            } else {
                ""
            };
            row([
                ("uid", &uid),
                ("gid", &gid),
                ("uid_signed", &uid),
                ("gid_signed", &gid),
                ("username", account.name),
                ("description", account.about),
                ("directory", &account.home),
                ("shell", account.shell),
                ("uuid", &sid(host, account.uid)),
                ("type", kind),
                ("is_hidden", "0"),
            ])
        })
        .collect()
}

/// What Windows and macOS call an account beside its number.
fn sid(host: &Host, uid: u32) -> String {
    match host.platform {
        Platform::Windows if uid < 500 => format!("S-1-5-{uid}"),
        Platform::Windows => format!("S-1-5-21-{}-{uid}", host.pick(18, 4_000_000_000)),
        Platform::Darwin => format!("FFFFEEEE-DDDD-CCCC-BBBB-AAAA{uid:08X}"),
        Platform::Ubuntu | Platform::CentOs => String::new(),
    }
}

fn groups(host: &Host) -> Vec<Row> {
    let mut known: Vec<(u32, &str)> = accounts(host)
        .iter()
        .map(|account| (gid(account), account.group))
        .collect();
    known.sort_unstable();
    known.dedup();
    let groups = known.into_iter();
    groups
        .map(|(gid, name)| {
            let gid = gid.to_string();
            row([
                ("gid", &gid),
                ("gid_signed", &gid),
                ("groupname", name),
                ("comment", ""),
            ])
        })
        .collect()
}

fn user_groups(host: &Host) -> Vec<Row> {
    let accounts = accounts(host).into_iter();
    accounts
        .map(|account| {
            row([
                ("uid", &account.uid.to_string()),
                ("gid", &gid(&account).to_string()),
            ])
        })
        .collect()
}

fn authorized_keys(host: &Host) -> Vec<Row> {
    let home = if host.platform == Platform::Darwin {
        "/Users"
    } else {
        "/home"
    };
    vec![row([
        ("uid", &owner_uid(host).to_string()),
        ("algorithm", "ssh-ed25519"),
        (
            "key",
            &format!("AAAAC3NzaC1lZDI1NTE5{:016x}", host.pick(19, u64::MAX)),
        ),
        ("comment", owner(host)),
        (
            "key_file",
            &format!("{home}/{}/.ssh/authorized_keys", owner(host)),
        ),
    ])]
}
