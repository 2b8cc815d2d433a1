//! Which of the common flags mean something to which subcommand: the others are not listed there, and refused.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command, CommandFactory as _, FromArgMatches as _};

use crate::cli::{Cli, Common};

/// What those take that start their servers themselves, or are told of one in words of their own. The other subcommands
/// take everything.
const TAKEN: [(&str, &[&str]); 4] = [
    ("measure", &["token", "pid"]),
    ("compare", &[]),
    ("growth", &["report"]),
    ("size", &["json"]),
];

/// Reads the command line; ends the process when it makes no sense.
pub(crate) fn parse() -> Cli {
    let mut command = command();
    let matches = command.get_matches_mut();
    if let Err(reason) = check(&matches) {
        command.error(ErrorKind::UnknownArgument, reason).exit();
    }
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The names of the common flags.
fn common() -> Vec<String> {
    let command = Common::augment_args(Command::new("common"));
    let names = command.get_arguments().map(|arg| arg.get_id().to_string());
    names.collect()
}

fn command() -> Command {
    let mut command = Cli::command();
    // Only then have the subcommands the common flags.
    command.build();
    let common = common();
    TAKEN.iter().fold(command, |command, (name, taken)| {
        command.mut_subcommand(*name, |sub| hide(sub, &common, taken))
    })
}

fn hide(command: Command, common: &[String], taken: &[&str]) -> Command {
    let names = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned());
    let names: Vec<String> = names.collect();
    let command = command.mut_args(|arg| {
        let id = arg.get_id().as_str();
        let hidden = common.iter().any(|name| name == id) && !taken.contains(&id);
        if hidden { arg.hide(true) } else { arg }
    });
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |sub| hide(sub, common, taken))
    })
}

/// That no flag was typed that means nothing.
fn check(matches: &ArgMatches) -> Result<(), String> {
    let Some((name, given)) = matches.subcommand() else {
        return Ok(());
    };
    let Some((_, taken)) = TAKEN.iter().find(|(sub, _)| *sub == name) else {
        return Ok(());
    };
    let typed = |id: &&String| given.value_source(id) == Some(ValueSource::CommandLine);
    let common = common();
    let mut typed = common.iter().filter(typed);
    match typed.find(|id| !taken.contains(&id.as_str())) {
        Some(id) => Err(format!(
            "--{} means nothing to `{name}`",
            id.replace('_', "-")
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_mean_nothing_are_not_listed_and_refused() {
        let mut command = command();
        for (name, taken) in TAKEN {
            let sub = command.find_subcommand_mut(name).unwrap();
            let help = sub.render_long_help().to_string();
            for id in common() {
                let flag = format!("--{}", id.replace('_', "-"));
                let is_listed =
                    help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n"));
                assert_eq!(
                    is_listed,
                    taken.contains(&id.as_str()),
                    "{name} {flag}: {help}"
                );
            }
        }
        let checked = |line: &str| {
            let words = line.split(' ');
            check(&super::command().try_get_matches_from(words).unwrap())
        };
        assert!(checked("loadtest size --json").is_ok());
        assert!(checked("loadtest fanout --report x.html --pid 1").is_ok());
        for line in [
            "loadtest size --report x.html",
            "loadtest --pid 1 growth",
            "loadtest compare --tls-skip-verify",
        ] {
            assert!(
                checked(line).unwrap_err().contains("means nothing"),
                "{line}"
            );
        }
    }
}
