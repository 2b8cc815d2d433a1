//! Which hosts a platform word means, in osquery's vocabulary.

/// Platforms that are neither Linux nor POSIX to osquery.
const NOT_LINUX: [&str; 7] = [
    "darwin", "windows", "chrome", "freebsd", "ios", "ipados", "android",
];

/// Whether a comma-separated list of platforms (empty for all) takes in a host of this platform. A host that has
/// not told its platform yet is taken in: queries look for themselves.
#[must_use]
pub(super) fn fits(platforms: &str, host: &str) -> bool {
    let mut words = platforms.split(',').map(str::trim).peekable();
    let blank = words.clone().all(str::is_empty);
    blank || host.is_empty() || words.any(|word| is(word, host))
}

/// The wider word for a host's platform, if there is one.
#[must_use]
pub(super) fn family(host: &str) -> Option<&'static str> {
    (!host.is_empty() && !NOT_LINUX.contains(&host)).then_some("linux")
}

fn is(word: &str, host: &str) -> bool {
    match word {
        "all" | "any" => true,
        "linux" => family(host).is_some(),
        "posix" => family(host).is_some() || matches!(host, "darwin" | "freebsd"),
        word => word == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_words_lists_and_families() {
        for (platforms, host) in [
            ("", "ubuntu"),
            (" , ", "x"),
            ("ubuntu", "ubuntu"),
            ("darwin, linux", "rhel"),
            ("posix", "darwin"),
            ("all", "windows"),
            ("windows", ""),
        ] {
            assert!(fits(platforms, host), "{platforms} {host}");
        }
        for (platforms, host) in [
            ("windows", "ubuntu"),
            ("linux", "darwin"),
            ("posix", "windows"),
        ] {
            assert!(!fits(platforms, host), "{platforms} {host}");
        }
    }
}
