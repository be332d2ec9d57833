//! The rules that neither Cargo nor Clippy can hold: how long a file is, which way imports run within `src`, and one
//! meaning for each name.

use std::{collections::BTreeMap, fs, path::Path};

/// Most lines of a file, its tests included.
const MOST_LINES: usize = 450;

/// The modules of `src` from the top down: each imports only those below it. A module that is not listed is data that
/// every other one may use, and imports none of these.
const MODULES: [&str; 9] =
    ["cli", "server", "http", "api", "repository", "pipelines", "pool", "tasks", "hugging_face"];

/// What is named in these places of `src` only.
const CONFINED: [(&str, &[&str]); 6] = [
    ("axum::", &["src/http/", "src/server"]),
    ("hyper::", &["src/http/", "src/server"]),
    ("tower::", &["src/http/", "src/server"]),
    ("thread::Builder", &["src/pool/worker.rs", "src/cli/logging/outlet.rs"]),
    ("thread::scope", &["src/pool/worker.rs"]),
    ("runtime::Builder", &["src/cli"]),
];

/// What no task names: it holds no lock and does not wait.
const NOT_IN_TASKS: [&str; 5] = ["Mutex", "RwLock", "async ", ".await", "tokio::"];

/// Names that mean two things still. The list only ever gets shorter.
#[rustfmt::skip]
const HOMONYMS: &[&str] = &[
    "Answer", "Ask", "Axis", "Bits", "Coding", "Component", "Config",
    "Element", "Ending", "Extent", "Failure", "Fault", "Found", "Gathered", "Item",
    "Job", "Keep", "Layout", "Limit", "Line", "Number", "Options", "Order",
    "Packed", "Pairs", "Panels", "Part", "Plain", "Reading", "Refusal", "Scan",
    "Segments", "Shape", "Shared", "Size", "Span", "Step", "Table", "Target",
    "Tiled", "Workers",
];

/// Every Rust file below these folders of the repository: its path, and its text.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let (root, mut found) = (Path::new(env!("CARGO_MANIFEST_DIR")), Vec::new());
    folders.iter().for_each(|folder| walk(root, &root.join(folder), &mut found));
    assert!(found.len() > 20, "only {} files below {folders:?}", found.len());
    found
}

/// What ships of a file: nothing of a test's, and of others what stands before their tests.
fn shipped<'a>(name: &str, text: &'a str) -> &'a str {
    match name.contains("/tests") {
        true => "",
        false => text.split("#[cfg(test)]\nmod ").next().unwrap_or_default(),
    }
}

#[test]
fn no_file_is_too_long_and_none_is_drawn_from_elsewhere() {
    for (name, text) in sources(&["src", "crates", "tests", "benches", "fuzz/src"]) {
        let n_lines = text.lines().count();
        assert!(n_lines <= MOST_LINES, "{name} has {n_lines} lines; split it along its story");
        let drawn = text.lines().any(|line| line.trim().starts_with("#[path = \"../../"));
        assert!(!drawn, "{name} includes a file of another crate; share it as a crate of its own");
    }
}

#[test]
fn imports_within_the_server_run_downwards() {
    for (name, text) in sources(&["src"]) {
        let own = name.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default();
        let rank = |module: &str| MODULES.iter().position(|it| *it == module);
        if matches!(own, "main" | "lib") {
            continue;
        }
        // Rustfmt writes a group of imports with a module a line, four spaces in.
        let mut in_group = false;
        for line in shipped(&name, &text).lines().filter(|line| !line.trim_start().starts_with("//")) {
            in_group = (in_group || line.ends_with("use crate::{")) && !line.starts_with("};");
            let paths = line
                .split("crate::")
                .skip(1)
                .flat_map(|path| path.strip_prefix('{').unwrap_or(path).split(", "));
            let grouped = in_group.then(|| line.strip_prefix("    ")).flatten();
            for module in paths.chain(grouped).filter_map(|path| path.split([':', ',', ';', '}']).next()) {
                let is_below = |to| own == module || rank(own).is_some_and(|from| from < to);
                assert!(
                    rank(module).is_none_or(is_below),
                    "{name} imports {module}, which is not below it in {MODULES:?}: {line}"
                );
            }
        }
    }
}

#[test]
fn what_has_its_place_is_named_there_only() {
    for (name, text) in sources(&["src"]) {
        for line in shipped(&name, &text).lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (what, places) in CONFINED {
                let at_home = places.iter().any(|place| name.starts_with(place));
                assert!(at_home || !line.contains(what), "{name} names {what} outside {places:?}: {line}");
            }
            let found =
                NOT_IN_TASKS.iter().find(|what| name.starts_with("src/tasks") && line.contains(**what));
            assert!(found.is_none(), "{name} is no pure function: {line}");
        }
    }
}

#[test]
fn each_name_of_a_type_means_one_thing() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, text) in sources(&["src", "crates"]) {
        for line in shipped(&name, &text).lines() {
            let mut words = line.split_whitespace();
            let is_visible = words.next().is_some_and(|word| word.starts_with("pub"));
            let mut words = words.skip_while(|word| word.ends_with(')'));
            if is_visible && matches!(words.next(), Some("struct" | "enum" | "trait" | "type" | "union")) {
                let name_of_type = words.next().unwrap_or_default();
                let end = name_of_type.find(|c: char| !c.is_alphanumeric()).unwrap_or(name_of_type.len());
                places.entry(name_of_type[..end].to_owned()).or_default().push(name.clone());
            }
        }
    }
    // What a macro names.
    places.remove("");
    assert!(places.len() > 100, "only {} types were found", places.len());
    places.retain(|_, places| places.len() > 1);
    let (listed, new): (Vec<_>, Vec<_>) =
        places.iter().partition(|(name, _)| HOMONYMS.contains(&name.as_str()));
    assert!(new.is_empty(), "a name means two things; give one of them another: {new:#?}");
    let done: Vec<_> = HOMONYMS.iter().filter(|it| !listed.iter().any(|(name, _)| name == *it)).collect();
    assert!(done.is_empty(), "{done:?} mean one thing now: take them off the list");
}
