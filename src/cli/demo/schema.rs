//! The tables of simulated hosts as osquery declares them: name, platforms, columns with types.

use super::host::Platform;

/// Which hosts have a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    All,
    /// Linux and macOS.
    Posix,
    Linux,
    Ubuntu,
    CentOs,
    Darwin,
    Windows,
}

impl On {
    pub(super) fn has(self, platform: Platform) -> bool {
        let linux = matches!(platform, Platform::Ubuntu | Platform::CentOs);
        match self {
            Self::All => true,
            Self::Posix => platform != Platform::Windows,
            Self::Linux => linux,
            Self::Ubuntu => platform == Platform::Ubuntu,
            Self::CentOs => platform == Platform::CentOs,
            Self::Darwin => platform == Platform::Darwin,
            Self::Windows => platform == Platform::Windows,
        }
    }
}

/// Every table: its name, where it exists, and its columns. `!` stands for BIGINT, `#` for INTEGER, `~` for DOUBLE
/// behind a column's name; all others are TEXT.
pub(super) const TABLES: [(&str, On, &str); 58] = [
    (
        "os_version",
        On::All,
        "name version major# minor# patch# build platform platform_like codename arch extra install_date!",
    ),
    (
        "system_info",
        On::All,
        "hostname uuid cpu_type cpu_subtype cpu_brand cpu_physical_cores# cpu_logical_cores# cpu_sockets# cpu_microcode physical_memory! hardware_vendor hardware_model hardware_version hardware_serial board_vendor board_model board_version board_serial computer_name local_hostname",
    ),
    (
        "platform_info",
        On::All,
        "vendor version date revision extra firmware_type address size volume_size#",
    ),
    (
        "osquery_info",
        On::All,
        "pid# uuid instance_id version config_hash config_valid# extensions build_platform build_distro start_time# watcher# platform_mask#",
    ),
    (
        "osquery_flags",
        On::All,
        "name type description default_value value shell_only#",
    ),
    (
        "osquery_registry",
        On::All,
        "registry name owner_uuid# internal# active#",
    ),
    (
        "osquery_extensions",
        On::All,
        "uuid! name version sdk_version path type",
    ),
    (
        "osquery_packs",
        On::All,
        "name platform version shard# discovery_cache_hits# discovery_executions# active#",
    ),
    (
        "osquery_schedule",
        On::All,
        "name query interval# executions! last_executed! denylisted# output_size! wall_time! wall_time_ms! last_wall_time_ms! user_time! last_user_time! system_time! last_system_time! average_memory! last_memory!",
    ),
    (
        "time",
        On::All,
        "weekday year# month# day# hour# minutes# seconds# timezone local_timezone unix_time# timestamp datetime iso_8601",
    ),
    (
        "uptime",
        On::All,
        "days# hours# minutes# seconds# total_seconds!",
    ),
    ("kernel_info", On::All, "version arguments path device"),
    (
        "cpu_info",
        On::All,
        "device_id model manufacturer processor_type cpu_status# number_of_cores logical_processors# address_width current_clock_speed# max_clock_speed# socket_designation availability load_percentage#",
    ),
    (
        "processes",
        On::All,
        "pid! name path cmdline state cwd root uid! gid! euid! egid! suid! sgid! on_disk# wired_size! resident_size! total_size! user_time! system_time! disk_bytes_read! disk_bytes_written! start_time! parent! pgroup! threads# nice#",
    ),
    (
        "process_open_sockets",
        On::All,
        "pid# fd! socket! family# protocol# local_address remote_address local_port# remote_port# path state",
    ),
    (
        "listening_ports",
        On::All,
        "pid# port# protocol# family# address fd! socket! path",
    ),
    (
        "users",
        On::All,
        "uid! gid! uid_signed! gid_signed! username description directory shell uuid type is_hidden# include_remote#",
    ),
    (
        "groups",
        On::All,
        "gid! gid_signed! groupname group_sid comment is_hidden#",
    ),
    ("user_groups", On::All, "uid! gid!"),
    (
        "logged_in_users",
        On::All,
        "type user tty host time! pid# sid registry_hive",
    ),
    (
        "interface_addresses",
        On::All,
        "interface address mask broadcast point_to_point type friendly_name",
    ),
    (
        "interface_details",
        On::All,
        "interface mac type# mtu# metric# flags# ipackets! opackets! ibytes! obytes! ierrors! oerrors! idrops! odrops! collisions! last_change! friendly_name description manufacturer",
    ),
    (
        "routes",
        On::All,
        "destination netmask# gateway source flags# interface mtu# metric# type hopcount#",
    ),
    ("arp_cache", On::All, "address mac interface permanent"),
    (
        "etc_hosts",
        On::All,
        "address hostnames pid_with_namespace#",
    ),
    (
        "etc_services",
        On::All,
        "name port# protocol aliases comment",
    ),
    (
        "file",
        On::All,
        "path directory filename inode! uid! gid! mode device! size! block_size# atime! mtime! ctime! btime! hard_links# symlink# type",
    ),
    (
        "certificates",
        On::All,
        "common_name subject issuer ca# self_signed# not_valid_before not_valid_after signing_algorithm key_algorithm key_strength key_usage subject_key_id authority_key_id sha1 path serial",
    ),
    (
        "startup_items",
        On::All,
        "name path args type source status username",
    ),
    (
        "python_packages",
        On::All,
        "name version summary author license path directory",
    ),
    (
        "chrome_extensions",
        On::All,
        "browser_type uid! name profile identifier version description author persistent# path permissions state# from_webstore",
    ),
    (
        "disk_encryption",
        On::Posix,
        "name uuid encrypted# type encryption_status uid user_uuid filevault_status",
    ),
    (
        "mounts",
        On::Posix,
        "device device_alias path type blocks_size! blocks! blocks_free! blocks_available! inodes! inodes_free! flags",
    ),
    (
        "block_devices",
        On::Posix,
        "name parent vendor model size! block_size# uuid type label",
    ),
    (
        "usb_devices",
        On::Posix,
        "usb_address# usb_port# vendor vendor_id version model model_id serial class subclass protocol removable#",
    ),
    (
        "crontab",
        On::Posix,
        "event minute hour day_of_month month day_of_week command path",
    ),
    (
        "last",
        On::Posix,
        "username tty pid# type# type_name time# host",
    ),
    ("load_average", On::Posix, "period average"),
    (
        "authorized_keys",
        On::Posix,
        "uid! algorithm key options comment key_file",
    ),
    ("sudoers", On::Posix, "source header rule_details"),
    ("suid_bin", On::Posix, "path username groupname permissions"),
    (
        "memory_info",
        On::Linux,
        "memory_total! memory_free! memory_available! buffers! cached! swap_cached! active! inactive! swap_total! swap_free!",
    ),
    (
        "kernel_modules",
        On::Linux,
        "name size! used_by status address",
    ),
    (
        "systemd_units",
        On::Linux,
        "id description load_state active_state sub_state following object_path job_id! job_type job_path fragment_path user source_path unit_file_state",
    ),
    (
        "deb_packages",
        On::Ubuntu,
        "name version source size! arch revision status maintainer section priority admindir",
    ),
    (
        "apt_sources",
        On::Ubuntu,
        "name source base_uri release version maintainer components architectures",
    ),
    (
        "rpm_packages",
        On::CentOs,
        "name version release source size! sha1 arch epoch# install_time# vendor package_group",
    ),
    (
        "yum_sources",
        On::CentOs,
        "name baseurl mirrorlist enabled gpgcheck gpgkey",
    ),
    (
        "apps",
        On::Darwin,
        "name path bundle_executable bundle_identifier bundle_name bundle_short_version bundle_version bundle_package_type environment element compiler development_region display_name info_string minimum_system_version category applescript_enabled copyright last_opened_time~",
    ),
    ("homebrew_packages", On::Darwin, "name path version type"),
    (
        "launchd",
        On::Darwin,
        "path name label program run_at_load keep_alive on_demand disabled username groupname program_arguments",
    ),
    (
        "sip_config",
        On::Darwin,
        "config_flag enabled# enabled_nvram#",
    ),
    (
        "gatekeeper",
        On::Darwin,
        "assessments_enabled# dev_id_enabled# version opaque_version",
    ),
    (
        "programs",
        On::Windows,
        "name version install_location install_source language publisher uninstall_string install_date identifying_number",
    ),
    (
        "services",
        On::Windows,
        "name service_type display_name status pid# start_type win32_exit_code# service_exit_code# path module_path description user_account",
    ),
    (
        "patches",
        On::Windows,
        "csname hotfix_id caption description fix_comments installed_by install_date installed_on",
    ),
    (
        "logical_drives",
        On::Windows,
        "device_id type description free_space! size! file_system boot_partition#",
    ),
    (
        "bitlocker_info",
        On::Windows,
        "device_id drive_letter persistent_volume_id conversion_status# protection_status# encryption_method version# percentage_encrypted# lock_status#",
    ),
];

/// The statements that declare the tables of a platform.
pub(super) fn declarations(platform: Platform) -> String {
    let mut out = String::new();
    for (name, on, columns) in TABLES {
        if !on.has(platform) {
            continue;
        }
        let columns = columns.split(' ').map(|column| {
            let kind = match column.chars().last() {
                Some('!') => "BIGINT",
                Some('#') => "INTEGER",
                Some('~') => "DOUBLE",
                _ => "TEXT",
            };
            format!("`{}` {kind}", column.trim_end_matches(['!', '#', '~']))
        });
        let columns: Vec<String> = columns.collect();
        out.push_str(&format!(
            "CREATE TABLE `{name}` ({});\n",
            columns.join(", ")
        ));
    }
    out
}
