//! The commands of README.md and deploy/, as they stand there: what `serve` is given, `check-config` finds right, and the
//! flags of every other command are known.

use std::path::Path;
use std::process::Command;

use answerback::net::tls;

use crate::redis_server::{RedisServer, is_installed};

const FILES: [&str; 3] = ["README.md", "deploy/README.md", "deploy/answerback.service"];

/// The commands of this program in a file's code, each with its arguments.
fn commands(file: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let is_markdown = Path::new(file).extension().is_some_and(|end| end == "md");
    let mut inside = !is_markdown;
    let mut found = Vec::new();
    for line in text.lines() {
        if is_markdown && line.starts_with("```") {
            inside = !inside;
        }
        if let Some(args) = arguments(line).filter(|_| inside) {
            found.push(args);
        }
    }
    found
}

/// What stands behind the program's name, as a shell would take it apart.
fn arguments(line: &str) -> Option<Vec<String>> {
    let line = line.split("  #").next()?.trim();
    let line = line
        .split_once("=")
        .filter(|(name, _)| name.starts_with("Exec"))
        .map_or(line, |(_, line)| line);
    let starts = ["answerback ", "/answerback ", "cargo run --release -- "];
    let behind = starts
        .iter()
        .find_map(|start| Some(line.split_once(start)?.1))?;
    let mut args = vec![String::new()];
    let mut quoted = false;
    for letter in behind.chars() {
        match letter {
            '"' => quoted = !quoted,
            ' ' if !quoted => args.push(String::new()),
            letter => args.last_mut()?.push(letter),
        }
    }
    args.retain(|arg| !arg.is_empty());
    let known = ["serve", "query", "migrate", "user", "check-config"];
    known.contains(&args.first()?.as_str()).then_some(args)
}

#[test]
fn the_commands_of_the_documents_are_right() {
    if !is_installed() {
        return;
    }
    let redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let pair = tls::self_signed(&[]).unwrap();
    std::fs::write(dir.path().join("cert.pem"), pair.certificate).unwrap();
    std::fs::write(dir.path().join("key.pem"), pair.key).unwrap();
    let mut tried = 0;
    for (file, command) in FILES
        .iter()
        .flat_map(|file| commands(file).into_iter().map(move |found| (file, found)))
    {
        tried += 1;
        let mut args = command.clone();
        match args[0].as_str() {
            "serve" => "check-config".clone_into(&mut args[0]),
            "check-config" => {}
            // Known flags and a sensible line, or it would be wrong usage; then nobody answers here.
            "query" => {
                args.extend(["--url", "http://127.0.0.1:1", "--token", "t"].map(str::to_owned))
            }
            _ => args.push("--help".to_owned()),
        }
        let is_query = args[0] == "query";
        for arg in &mut args {
            *arg = arg.replace("redis://127.0.0.1:6379", &redis.url());
        }
        let mut program = Command::new(env!("CARGO_BIN_EXE_answerback"));
        let done = program
            .args(&args)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let expected = Some(i32::from(is_query));
        assert_eq!(done.status.code(), expected, "{file}: {command:?}: {said}");
    }
    assert!(tried >= 8, "{tried}");
}
