//! Log lines on standard error, as text or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

use super::lines::Lines;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object a line, for machines.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Looks of a line.
    pub format: Format,
    /// Levels by module, e.g. `info,answerback::net=debug`.
    pub filter: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            format: Format::Text,
            filter: "info".to_owned(),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter does not read.
    #[error("log filter is not valid")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// There can be no thread that writes.
    #[error("no thread for the log")]
    Thread(#[from] std::io::Error),
    /// Another subscriber is installed in this process.
    #[error("another log subscriber is installed already")]
    Taken(#[from] tracing_subscriber::util::TryInitError),
}

/// Whether `filter` reads, for a check of the configuration.
///
/// # Errors
/// [`LoggingError::Filter`].
pub fn check(filter: &str) -> Result<(), LoggingError> {
    EnvFilter::try_new(filter)?;
    Ok(())
}

/// The filter, with what rustls would warn of left out unless somebody asks for rustls: osquery names the server in the
/// handshake as it was given, an address too, and each of its connections would be a warning.
fn quieted(filter: &str) -> String {
    if filter.contains("rustls") {
        filter.to_owned()
    } else {
        format!("{filter},rustls=error")
    }
}

/// Installs the subscriber of this process. Whoever ends the process flushes the lines before.
///
/// # Errors
/// [`LoggingError`], the second time too.
pub fn install(settings: &Settings) -> Result<Lines, LoggingError> {
    let filter = EnvFilter::try_new(quieted(&settings.filter))?;
    let way = Lines::start(std::io::stderr())?;
    let lines = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(way.clone());
    match settings.format {
        Format::Text => registry()
            .with(filter)
            .with(lines.with_target(true))
            .try_init()?,
        Format::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false);
            registry().with(filter).with(lines).try_init()?;
        }
    }
    Ok(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked_without_being_installed() {
        assert!(check("info,answerback::net=debug").is_ok());
        assert!(check("answerback=loudly").is_err());
        assert_eq!(quieted("info"), "info,rustls=error");
        assert_eq!(quieted("info,rustls=debug"), "info,rustls=debug");
        assert!(check(&quieted("info")).is_ok());
    }
}
