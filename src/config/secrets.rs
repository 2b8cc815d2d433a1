//! Secrets: from files rather than from flags, which every user of the machine sees in `ps`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::raw::Raw;

/// Bytes of a file with a secret.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

impl Raw {
    /// The same with the secrets that stand in files.
    ///
    /// # Errors
    /// When a secret is given twice, or its file cannot be read; the text says which and what to do.
    pub fn with_secrets_of_files(mut self) -> Result<Raw, String> {
        for (flag, value, file) in [
            ("store", &mut self.store, &mut self.store_file),
            (
                "admin-password",
                &mut self.admin_password,
                &mut self.admin_password_file,
            ),
            ("api-token", &mut self.api_token, &mut self.api_token_file),
            (
                "enroll-secret",
                &mut self.enroll_secret,
                &mut self.enroll_secret_file,
            ),
            (
                "node-secret",
                &mut self.node_secret,
                &mut self.node_secret_file,
            ),
        ] {
            from_file(flag, value, file.take())?;
        }
        Ok(self)
    }
}

/// Takes a value from a file, if one is named.
///
/// # Errors
/// See [`Raw::with_secrets_of_files`].
pub fn from_file(
    flag: &str,
    value: &mut Option<String>,
    file: Option<PathBuf>,
) -> Result<(), String> {
    let Some(file) = file.filter(|file| !file.as_os_str().is_empty()) else {
        return Ok(());
    };
    if value.as_ref().is_some_and(|value| !value.is_empty()) {
        return Err(format!(
            "--{flag} and --{flag}-file are both given: leave one out"
        ));
    }
    *value =
        Some(read(&file).map_err(|error| format!("--{flag}-file: {}: {error}", file.display()))?);
    Ok(())
}

/// A file's text without the line break at its end.
fn read(file: &Path) -> Result<String, String> {
    let size = std::fs::metadata(file)
        .map_err(|error| error.to_string())?
        .len();
    if size > SECRET_BYTES_MAX {
        return Err(format!("has more than {SECRET_BYTES_MAX} bytes"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    Ok(text.to_owned())
}

/// The flags among these arguments whose values are secrets. A store's URL is one if it has a password.
#[must_use]
pub fn shown_by(arguments: impl IntoIterator<Item = OsString>) -> Vec<&'static str> {
    const FLAGS: [&str; 5] = [
        "admin-password",
        "api-token",
        "enroll-secret",
        "node-secret",
        "store",
    ];
    let arguments: Vec<String> = arguments
        .into_iter()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let is_given = |flag: &&&str| {
        arguments.iter().enumerate().any(|(at, argument)| {
            let value = match argument
                .strip_prefix("--")
                .and_then(|rest| rest.strip_prefix(**flag))
            {
                Some("") => arguments.get(at + 1).map(String::as_str),
                Some(rest) => rest.strip_prefix('='),
                None => None,
            };
            value.is_some_and(|value| **flag != "store" || value.contains('@'))
        })
    };
    FLAGS.iter().filter(is_given).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_from_a_file_or_from_a_flag_and_faults_say_which() {
        let directory = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = directory.path().join(format!("{}", text.len()));
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let raw = Raw {
            api_token_file: file("a token\n"),
            admin_password: Some("p".to_owned()),
            ..Raw::default()
        };
        let read = raw.clone().with_secrets_of_files().unwrap();
        assert_eq!(
            (read.api_token.as_deref(), read.admin_password.as_deref()),
            (Some("a token"), Some("p"))
        );
        let twice = Raw {
            api_token: Some("x".to_owned()),
            ..raw
        };
        assert!(
            twice
                .with_secrets_of_files()
                .unwrap_err()
                .contains("--api-token-file are both given")
        );
        for (name, wrong) in [
            ("empty", file(" \n")),
            ("absent", Some(directory.path().join("none"))),
        ] {
            let raw = Raw {
                store_file: wrong,
                ..Raw::default()
            };
            let fault = raw.with_secrets_of_files().unwrap_err();
            assert!(fault.starts_with("--store-file: "), "{name}: {fault}");
        }
    }

    #[test]
    fn secrets_among_the_arguments_are_found() {
        let shown = |line: &str| shown_by(line.split(' ').map(OsString::from));
        assert_eq!(
            shown("answerback serve --api-token x --node-secret=y"),
            ["api-token", "node-secret"]
        );
        assert_eq!(shown("answerback serve --store redis://:p@h"), ["store"]);
        assert!(
            shown("answerback serve --store redis://h --api-token-file f --api-token").is_empty()
        );
    }
}
