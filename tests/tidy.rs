//! The house rules as tests: floors, sizes, first lines, and the crates that must be in real use.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read the tree has failed"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates, each above those that it depends on, which Cargo sees to.
const CRATES: [&str; 5] = ["base", "sockjs", "broker", "sockjs-warp", "store"];
/// Crates that have no I/O, runtime, clock or randomness.
const PURE: [&str; 2] = ["sockjs", "broker"];
/// The floor of each top-level module of the product, as ARCHITECTURE.md draws them. A module imports only from lower floors.
const FLOORS: [(u32, &[&str]); 8] = [
    (0, &["telemetry"]),
    (3, &["catalog"]),
    (4, &["auth"]),
    (
        5,
        &["agents", "api", "console", "control", "ops", "viewers"],
    ),
    (6, &["config", "shutdown"]),
    (7, &["cli"]),
    (8, &["app"]),
    (9, &["lib", "main"]),
];
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 60;
/// What pure modules must not name.
const IMPURE: [&str; 12] = [
    "tokio",
    "warp",
    "hyper",
    "redis",
    "rusqlite",
    "std::fs",
    "std::net",
    "std::io",
    "SystemTime",
    "Instant",
    "getrandom",
    "Clock::System",
];
/// The design card's crates.
const CARD: [&str; 9] = [
    "warp",
    "tokio",
    "tokio_stream",
    "futures_util",
    "serde",
    "serde_json",
    "redis",
    "dashmap",
    "governor",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "node_modules" {
            files_under(&path, ending, found);
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

/// Every Rust file of the project by its path from the root.
fn sources() -> BTreeMap<String, String> {
    let mut found = Vec::new();
    for folder in [
        "src", "crates", "tests", "benches", "examples", "loadtest", "fuzz",
    ] {
        files_under(&root().join(folder), ".rs", &mut found);
    }
    let name = |path: &Path| {
        path.strip_prefix(root())
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    found
        .iter()
        .map(|path| (name(path), fs::read_to_string(path).unwrap()))
        .collect()
}

fn floor_of(module: &str) -> Option<u32> {
    FLOORS
        .iter()
        .find(|(_, modules)| modules.contains(&module))
        .map(|(floor, _)| *floor)
}

/// The top-level module that a file under `src` belongs to.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    Some(inside.split('/').next()?.trim_end_matches(".rs"))
}

/// A file without what is only compiled for its tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text)
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/") || path.starts_with("tests/")
}

/// The modules that a line of code names by `crate::`.
fn crate_names(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut named = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let group = rest
            .strip_prefix('{')
            .map_or(rest, |group| group.split("};").next().unwrap_or(group));
        if rest.starts_with('{') {
            named.extend(group.split(',').map(word));
        } else {
            named.push(word(rest));
        }
    }
    named.retain(|name| !name.is_empty());
    named
}

fn word(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|at| at.is_alphanumeric() || *at == '_')
        .collect()
}

#[test]
fn modules_import_only_from_lower_floors() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let Some(module) = module_of(&path) else {
            continue;
        };
        if is_test_file(&path) || module == "lib" {
            continue;
        }
        let floor =
            floor_of(module).unwrap_or_else(|| panic!("{path}: {module} stands on no floor"));
        for name in crate_names(without_tests(&text)) {
            let Some(other) = floor_of(&name) else {
                continue;
            };
            if name != module && other >= floor {
                faults.push(format!(
                    "{path}: {module} (floor {floor}) imports {name} (floor {other})"
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The paths of modules that a piece of code after `crate::` or `super::` names, groups taken apart.
fn paths(code: &str, found: &mut Vec<Vec<String>>, before: &[String]) {
    let mut path = before.to_vec();
    let mut rest = code.trim_start();
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut from) = (0, 0);
            for (at, letter) in group.char_indices() {
                match letter {
                    '{' => depth += 1,
                    ',' | '}' if depth == 0 => {
                        paths(&group[from..at], found, &path);
                        from = at + 1;
                        if letter == '}' {
                            return;
                        }
                    }
                    '}' => depth -= 1,
                    _ => {}
                }
            }
            return;
        }
        let name = word(rest);
        let Some(after) = rest[name.len()..].strip_prefix("::") else {
            path.push(name);
            found.push(path);
            return;
        };
        path.push(name);
        rest = after;
    }
}

/// The modules that a file of `src` names, as paths from the crate's root.
fn imports(module: &[String], text: &str) -> Vec<Vec<String>> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        paths(rest, &mut found, &[]);
    }
    for line in code.split("use super::").skip(1) {
        let (mut depth, mut rest) = (1, line);
        while let Some(further) = rest.strip_prefix("super::") {
            (depth, rest) = (depth + 1, further);
        }
        let base = &module[..module.len().saturating_sub(depth)];
        paths(rest, &mut found, base);
    }
    found
}

/// Whether `from` is reached again by following the arrows.
fn comes_back(from: &str, arrows: &BTreeMap<String, BTreeSet<String>>) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(at) = open.pop() {
        for next in arrows.get(at).into_iter().flatten() {
            if next == from {
                return true;
            }
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    false
}

/// The folder of a crate's sources, and a file's path from there.
fn inside_a_crate(path: &str) -> Option<(&str, &str)> {
    if let Some(inside) = path.strip_prefix("src/") {
        return Some(("src", inside));
    }
    let at = path.strip_prefix("crates/")?.find("/src/")? + "crates/".len();
    Some((&path[..at + 4], &path[at + 5..]))
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in sources() {
        let Some((folder, inside)) = inside_a_crate(&path).filter(|_| !is_test_file(&path)) else {
            continue;
        };
        let inside = inside.trim_end_matches(".rs").trim_end_matches("/mod");
        let module: Vec<String> = inside.split('/').map(str::to_owned).collect();
        for named in imports(&module, without_tests(&text)) {
            // Between neighbours: the first place at which the two paths differ, if both are modules there.
            let shared = module.iter().zip(&named).take_while(|(a, b)| a == b);
            let at = shared.count();
            let (Some(_), Some(_)) = (module.get(at), named.get(at)) else {
                continue;
            };
            let (from, to) = (module[..=at].join("/"), named[..=at].join("/"));
            let place = root().join(folder).join(&to);
            if place.is_dir() || place.with_extension("rs").exists() {
                let named = |module| format!("{folder}/{module}");
                arrows.entry(named(from)).or_default().insert(named(to));
            }
        }
    }
    let circles: Vec<_> = arrows
        .keys()
        .filter(|from| comes_back(from, &arrows))
        .collect();
    assert!(arrows.len() > 50 && circles.is_empty(), "{circles:?}");
}

#[test]
fn pure_modules_name_no_machinery() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let is_pure = |name: &&str| path.starts_with(&format!("crates/{name}/src/"));
        if !PURE.iter().any(is_pure) || is_test_file(&path) {
            continue;
        }
        for (at, line) in without_tests(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                faults.push(format!("{path}:{}: {word}", at + 1));
            }
        }
    }
    for name in PURE.iter().chain(["base"].iter()) {
        let manifest =
            fs::read_to_string(root().join(format!("crates/{name}/Cargo.toml"))).unwrap();
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap();
        for word in IMPURE.iter().filter(|word| dependencies.contains(**word)) {
            faults.push(format!("crates/{name} depends on {word}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_is_short() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        if !text.starts_with("//! ") {
            faults.push(format!(
                "{path}: the first line does not say what the file is for"
            ));
        }
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{path}: {lines} lines"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn functions_are_short() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let mut open: Option<(usize, usize, String)> = None;
        for (at, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim_start();
            let starts = code.starts_with("fn ")
                || code.contains(" fn ") && code.starts_with(['p', 'a', 'c']);
            if open.is_none() && starts && !code.ends_with(';') {
                open = Some((indent, at, code.to_owned()));
            } else if let Some((depth, from, name)) = &open
                && indent == *depth
                && (code == "}" || code.ends_with(';') && !code.starts_with(')'))
            {
                if at - from > FUNCTION_LINES_MAX {
                    faults.push(format!("{path}:{}: {} lines: {name}", from + 1, at - from));
                }
                open = None;
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_cards_crates_are_direct_dependencies_in_real_use() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let code: String = sources()
        .into_iter()
        .filter(|(path, _)| inside_a_crate(path).is_some() && !is_test_file(path))
        .map(|(_, text)| without_tests(&text).to_owned())
        .collect();
    for name in CARD {
        let listed = |line: &str| {
            let line = line.replace('-', "_");
            line.starts_with(&format!("{name} =")) || line.starts_with(&format!("{name}.workspace"))
        };
        assert!(manifest.lines().any(listed), "{name} is not listed");
        assert!(code.contains(&format!("{name}::")), "{name} is not used");
    }
}

#[test]
fn the_papers_are_there_and_the_changelog_has_a_place_for_news() {
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "docs/glossary.md",
        "LICENSE",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        ".ci/run",
        "test",
    ] {
        assert!(root().join(name).exists(), "{name} is missing");
    }
    assert!(
        fs::read_to_string(root().join("CHANGELOG.md"))
            .unwrap()
            .contains("## Unreleased")
    );
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(
        architecture.lines().count() <= 200,
        "ARCHITECTURE.md is long"
    );
    let mut decisions = Vec::new();
    files_under(&root().join("docs/decisions"), ".md", &mut decisions);
    for decision in decisions {
        let name = decision.file_name().unwrap().to_string_lossy();
        assert!(architecture.contains(&*name), "{name} is not linked");
    }
    let glossary = fs::read_to_string(root().join("docs/glossary.md")).unwrap();
    for place in glossary
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|text| text.contains('/'))
    {
        assert!(root().join(place).exists(), "the glossary names {place}");
    }
    for name in CRATES {
        let drawn = format!("crates/{name}");
        assert!(
            architecture.contains(&drawn),
            "ARCHITECTURE.md does not draw {drawn}"
        );
        assert!(root().join(&drawn).is_dir(), "{drawn} is not there");
    }
    for (_, modules) in FLOORS {
        for module in modules.iter().filter(|module| **module != "lib") {
            assert!(
                architecture.contains(module),
                "ARCHITECTURE.md does not draw {module}"
            );
        }
    }
}

/// Whoever trusts the threat model must find the tests that it names.
#[test]
fn the_tests_that_the_threat_model_names_are_there() {
    let text = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let code: String = sources().into_values().collect();
    let quoted = text.split('`').skip(1).step_by(2);
    let named: Vec<&str> = quoted.filter(|name| name.contains("::")).collect();
    assert!(named.len() > 10, "{}", named.len());
    for name in named {
        let last = name.rsplit("::").next().unwrap().trim_end_matches('…');
        let is_there = [format!("fn {last}"), format!("mod {last}")];
        assert!(is_there.iter().any(|each| code.contains(each)), "{name}");
    }
}
