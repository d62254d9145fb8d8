//! Who may use whom: the design's table of modules, held against the `use` lines of the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each module with the modules of this crate that it may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("api", &["engine", "request", "output", "error", "metrics", "config"]),
    ("engine", &["scheduler", "pipeline", "request", "error", "metrics", "config"]),
    ("scheduler", &["request", "error"]),
    ("pipeline", &["model", "sampler", "checkpoint", "request", "error"]),
    ("model", &["ops", "error"]),
    ("checkpoint", &["error"]),
    ("ops", &["error"]),
    ("sampler", &[]),
    ("output", &["request", "error"]),
    ("request", &["sampler", "error"]),
    ("error", &[]),
    ("metrics", &["error"]),
    ("config", &["error"]),
    ("telemetry", &["error"]),
];

/// Each module with the crates that it must not know.
const NEVER: &[(&str, &[&str])] = &[
    ("api", &["candle_core", "candle_nn"]),
    ("engine", &["actix_web", "serde", "serde_json"]),
    ("scheduler", &["candle_core", "tokio", "actix_web", "rand"]),
    ("pipeline", &["actix_web", "tokio"]),
    ("sampler", &["candle_core", "serde", "thiserror", "image", "rayon"]),
    ("request", &["serde", "actix_web", "candle_core"]),
    ("output", &["actix_web", "candle_core"]),
];

/// The sources of each module, without their unit tests.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules: BTreeMap<String, String> = BTreeMap::new();
    for path in files(&root) {
        let inside = path.strip_prefix(&root).expect("the file lies under src");
        let first = inside.components().next().expect("a file has a name").as_os_str().to_string_lossy();
        let name = first.trim_end_matches(".rs").to_owned();
        if ["lib", "main", "cli"].contains(&name.as_str()) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("the source is read");
        let code = text.split("#[cfg(test)]\nmod tests").next().expect("a text has a beginning").to_owned();
        modules.entry(name).or_default().push_str(&code);
    }
    modules
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is read");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .collect()
}

/// The names that follow `crate::` in code, comments aside.
fn used(code: &str) -> BTreeSet<String> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn modules_use_only_what_the_table_of_the_design_allows() {
    let mut wrong = Vec::new();
    for (module, code) in sources() {
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{module} is not in the table"));
            continue;
        };
        let others =
            used(&code).into_iter().filter(|name| *name != module && !allowed.contains(&name.as_str()));
        wrong.extend(others.map(|name| format!("{module} uses {name}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn modules_stay_clear_of_the_crates_that_the_design_keeps_from_them() {
    let sources = sources();
    for (module, crates) in NEVER {
        let code = sources.get(*module).map_or("", String::as_str);
        for name in *crates {
            assert!(!code.contains(&format!("{name}::")), "{module} uses {name}");
        }
    }
}

#[test]
fn files_stay_within_four_hundred_lines_before_their_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in files(&root) {
        let text = std::fs::read_to_string(&path).expect("the source is read");
        let lines = text.split("#[cfg(test)]\nmod tests").next().map_or(0, |code| code.lines().count());
        assert!(lines <= 400, "{} has {lines} lines before its tests", path.display());
    }
}
