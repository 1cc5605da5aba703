//! The rules of the house that a compiler does not know: which module may use which, what may not be
//! called where, how long a function may grow, what a file must begin with, and which packages may come in.
//! A rule that matters is a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which modules of the root crate a module may use; upper rows of docs/architecture.md may use lower
/// ones, never the reverse.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "main",
        &[
            "server",
            "settings",
            "telemetry",
            "recover_cli",
            "cluster_cli",
            "error",
        ],
    ),
    ("recover_cli", &["settings"]),
    ("cluster_cli", &["cluster", "settings", "clock", "error"]),
    (
        "server",
        &[
            "http",
            "grpc",
            "service",
            "discovery",
            "naming",
            "probe",
            "push",
            "state",
            "consensus",
            "cluster",
            "config",
            "namespace",
            "model",
            "error",
            "settings",
            "clock",
            "metrics",
            "shutdown",
            "telemetry",
        ],
    ),
    (
        "http",
        &[
            "service",
            "api_code",
            "model",
            "metrics",
            "error",
            "settings",
            "clock",
            "shutdown",
            "config",
            "namespace",
            "naming",
            "discovery",
        ],
    ),
    (
        "grpc",
        &[
            "service",
            "api_code",
            "model",
            "metrics",
            "error",
            "settings",
            "clock",
            "shutdown",
            "cluster",
            "config",
            "naming",
            "discovery",
        ],
    ),
    (
        "service",
        &[
            "consensus",
            "discovery",
            "naming",
            "push",
            "config",
            "namespace",
            "cluster",
            "state",
            "model",
            "error",
            "settings",
            "clock",
            "metrics",
            "shutdown",
            "seeded",
        ],
    ),
    ("probe", &["naming", "model", "clock"]),
    (
        "push",
        &[
            "state", "config", "naming", "model", "clock", "metrics", "shutdown", "seeded",
        ],
    ),
    (
        "consensus",
        &[
            "state", "model", "clock", "shutdown", "metrics", "error", "seeded",
        ],
    ),
    (
        "state",
        &["config", "namespace", "naming", "model", "error", "seeded"],
    ),
    (
        "cluster",
        &[
            "consensus",
            "model",
            "error",
            "clock",
            "shutdown",
            "metrics",
            "settings",
        ],
    ),
    ("config", &["model"]),
    ("namespace", &["model"]),
    ("naming", &["model", "seeded"]),
    (
        "discovery",
        &[
            "distro", "naming", "model", "cluster", "push", "clock", "shutdown", "metrics", "error", "seeded",
        ],
    ),
    ("distro", &["naming", "model"]),
    ("model", &[]),
    ("api_code", &["error", "model"]),
    ("error", &["model"]),
    ("settings", &["model", "error"]),
    ("clock", &[]),
    ("metrics", &["model", "clock", "error"]),
    ("shutdown", &[]),
    ("seeded", &[]),
    ("telemetry", &["settings", "shutdown"]),
];

/// What may not be written, where it may all the same, and why.
const BANNED: &[(&str, &[&str], &str)] = &[
    ("dbg!(", &[], "left over from a search for a bug"),
    (
        "FIXME",
        &[],
        "mend it or say what is missing and why: TODO(reason)",
    ),
    (
        "unbounded_channel",
        &[],
        "every queue has a bound and says what happens at it",
    ),
    (
        "mpsc::channel()",
        &["storage/src/writer.rs"],
        "every queue has a bound and says what happens at it",
    ),
    (
        "tokio::spawn(",
        &["src/shutdown.rs"],
        "every task is tracked: shutdown::spawn",
    ),
    (
        "Instant::now()",
        &["src/clock.rs", "storage/src/writer.rs"],
        "time comes from clock",
    ),
    ("SystemTime::now()", &["src/clock.rs"], "time comes from clock"),
    (
        "std::env::var",
        &["src/settings.rs", "src/settings/", "src/seeded.rs"],
        "settings are read in one place",
    ),
];

/// Functions of more than 70 lines that exist; the list may shrink, never grow without a reason beside it.
const LONG_FUNCTIONS: &[&str] = &[
    // One struct literal that wires the loop.
    "src/consensus/node.rs: start",
    // Every part of the server, in the order in which each needs the ones before it.
    "src/server.rs: start_tuned",
    // One struct literal: what the core begins with.
    "raft/src/node.rs: new",
];

const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    let table: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for file in rust_files("src").into_iter().filter(|file| !is_test(file)) {
        let module = top_module(&file);
        if module == "lib" {
            continue;
        }
        let Some(allowed) = table.get(module.as_str()) else {
            wrong.push(format!(
                "{}: module `{module}` has no row in ARROWS",
                file.display()
            ));
            continue;
        };
        for (number, line) in production_lines(&file) {
            for used in crate_paths(&line).into_iter().filter(|used| *used != module) {
                if table.contains_key(used.as_str()) && !allowed.contains(&used.as_str()) {
                    wrong.push(format!(
                        "{}:{number}: `{module}` may not use `{used}`",
                        file.display()
                    ));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that point the wrong way:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn nothing_banned_is_written() {
    let mut wrong = Vec::new();
    for file in all_rust_files() {
        let name = file.display().to_string();
        let tools = ["jepsen/", "loadtest/", "fuzz/"]
            .iter()
            .any(|tool| name.starts_with(tool))
            || name.contains("/examples/")
            || is_test(&file);
        for (number, line) in production_lines(&file) {
            for (word, except, why) in BANNED {
                let style = matches!(*word, "dbg!(" | "FIXME");
                if (tools && !style) || except.iter().any(|place| name.starts_with(place)) {
                    continue;
                }
                if line.contains(word) && !line.trim_start().starts_with("//") {
                    wrong.push(format!("{name}:{number}: `{word}`: {why}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> = all_rust_files()
        .into_iter()
        .filter(|file| !file.to_string_lossy().contains("generated"))
        .filter(|file| !read(file).trim_start().starts_with("//!") && !read(file).starts_with("#!["))
        .map(|file| file.display().to_string())
        .collect();
    assert!(
        silent.is_empty(),
        "these files do not begin with a `//!` line: {silent:?}"
    );
}

#[test]
fn functions_do_not_cross_the_limit() {
    let mut long = BTreeSet::new();
    for file in ["src", "raft/src", "storage/src", "proto/src"]
        .iter()
        .flat_map(|dir| rust_files(dir))
    {
        if file.to_string_lossy().contains("generated") || is_test(&file) {
            continue;
        }
        for (name, lines) in functions(&file) {
            if lines > FUNCTION_LINES_MAX {
                long.insert(format!("{}: {name}", file.display()));
            }
        }
    }
    let known: BTreeSet<String> = LONG_FUNCTIONS.iter().map(|name| (*name).to_owned()).collect();
    let crossed: Vec<_> = long.difference(&known).collect();
    let shrunk: Vec<_> = known.difference(&long).collect();
    assert!(
        crossed.is_empty(),
        "split these (the parent keeps the control flow): {crossed:#?}"
    );
    assert!(
        shrunk.is_empty(),
        "no longer long, take them off the list: {shrunk:#?}"
    );
}

#[test]
fn nothing_points_outside_the_project() {
    let mut wrong = Vec::new();
    for file in tracked_files() {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            let absolute = ["/work/", "/root/", "/home/"]
                .iter()
                .any(|path| line.contains(path));
            if absolute && !file.ends_with("tests/tidy.rs") {
                wrong.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "paths of some machine:\n{}", wrong.join("\n"));
}

/// Licences that a package may have.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "0BSD",
    "Unlicense",
    "BSL-1.0",
    "MIT-0",
    "Apache-2.0 WITH LLVM-exception",
];

/// Packages that come in twice, and for whose sake.
const TWICE: &[&str] = &[
    // ring (TLS) asks the system for randomness through an older one.
    "getrandom",
    // Each of fjall's caches and maps pins its own.
    "hashbrown",
    // protox (compiles the .proto files in a test) and the miette below it.
    "logos",
    "logos-codegen",
    "logos-derive",
    // Derive macros move from one major version to the next at their own pace; compile time only.
    "syn",
];

#[test]
fn packages_come_from_the_registry_once_and_under_a_licence_we_accept() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        // Packages of other platforms need not be on this machine.
        .args(["--filter-platform", &host()])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(
        metadata.status.success(),
        "{}",
        String::from_utf8_lossy(&metadata.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&metadata.stdout).expect("cargo metadata is JSON");
    let mut wrong = Vec::new();
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let Some(source) = package["source"].as_str() else {
            continue;
        };
        if !source.starts_with("registry+") && !source.starts_with("sparse+") {
            wrong.push(format!("{name} comes from {source}"));
        }
        let licence = package["license"].as_str().unwrap_or("none").replace('/', " OR ");
        let accepted = licence.split(" OR ").any(|choice| {
            choice
                .split(" AND ")
                .all(|part| LICENCES.contains(&part.trim_matches(['(', ')', ' '])))
        });
        if !accepted {
            wrong.push(format!("{name} is under {licence}"));
        }
        versions
            .entry(name)
            .or_default()
            .insert(package["version"].as_str().unwrap_or_default().to_owned());
    }
    for (name, versions) in versions {
        if versions.len() > 1 && !TWICE.contains(&name.as_str()) {
            wrong.push(format!(
                "{name} comes in {} versions: {versions:?}",
                versions.len()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The platform this compiler builds for by default.
fn host() -> String {
    let version = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let line = version.lines().find_map(|line| line.strip_prefix("host: "));
    line.expect("rustc names its host").to_owned()
}

/// Tests may stand above everything they test.
fn is_test(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Rust files below a folder of the project, relative to it, in order.
fn rust_files(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root()).expect("below the root").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn all_rust_files() -> Vec<PathBuf> {
    [
        "src", "tests", "raft", "storage", "proto", "jepsen", "loadtest", "fuzz",
    ]
    .iter()
    .flat_map(|dir| rust_files(dir))
    .filter(|file| !file.to_string_lossy().contains("/generated/"))
    .filter(|file| !file.ends_with("tests/tidy.rs"))
    .collect()
}

fn tracked_files() -> Vec<PathBuf> {
    let listed = Command::new("git").arg("ls-files").current_dir(root()).output();
    // Outside a checkout (a packed source) there is nothing to list and nothing to say.
    let Ok(listed) = listed else { return Vec::new() };
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .map(|name| root().join(name))
        .collect()
}

fn top_module(file: &Path) -> String {
    let inside = file.strip_prefix("src").expect("a file of the root crate");
    let first = inside
        .components()
        .next()
        .expect("a name")
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Lines with their numbers, up to the tests at the end of a file.
fn production_lines(file: &Path) -> Vec<(usize, String)> {
    read(file)
        .lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .map(|(number, line)| (number + 1, line.to_owned()))
        .collect()
}

/// Module names that follow `crate::` in a line of code.
fn crate_paths(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices("crate::")
        .map(|(at, word)| {
            let rest = &code[at + word.len()..];
            rest.chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect()
        })
        .filter(|name: &String| !name.is_empty())
        .collect()
}

/// Functions of a file with their number of lines; relies on the layout that rustfmt gives.
fn functions(file: &Path) -> Vec<(String, usize)> {
    let lines = production_lines(file);
    let mut found = Vec::new();
    for (at, (_, line)) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
        let end = lines[at..]
            .iter()
            .position(|(_, line)| *line == format!("{indent}}}"));
        found.push((name, end.unwrap_or(0) + 1));
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.trim_start();
    for prefix in [
        "pub(crate) ",
        "pub(super) ",
        "pub ",
        "const ",
        "async ",
        "unsafe ",
    ] {
        words = words.strip_prefix(prefix).unwrap_or(words);
    }
    let name = words.strip_prefix("fn ")?;
    Some(
        name.chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect(),
    )
}
