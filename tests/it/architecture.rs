//! The rules of ARCHITECTURE.md, held against the source: who may import whom, where a library may be
//! named, where threads start, how long a file may grow.
//!
//! The checker reads text, not types. It knows `use` trees and paths, which is all that the rules are
//! about, and it leaves tests alone.

mod rules;
mod source;

use std::{
    fs,
    path::{Path, PathBuf},
};

use self::{rules::broken_by, source::Source};

/// Every Rust file below `dir`, with its path relative to `root`.
fn sources(root: &Path, dir: &Path, found: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            found.push(Source::new(&name, &fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn every_room_keeps_to_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    sources(root, &root.join("src"), &mut found);
    assert!(found.len() > 20, "only {} files found", found.len());
    let mut broken: Vec<String> = found.iter().flat_map(broken_by).collect();
    // Between crates Cargo holds the borders; files are short everywhere.
    let mut in_crates = Vec::new();
    sources(root, &root.join("crates"), &mut in_crates);
    let long = in_crates.iter().filter(|source| source.n_lines > rules::MOST_LINES);
    broken.extend(long.map(|source| format!("{}: {} lines", source.name, source.n_lines)));
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What the checker says of `text` as the file `name`.
fn said_of(name: &str, text: &str) -> String {
    broken_by(&Source::new(name, text)).join("\n")
}

#[test]
fn each_rule_finds_what_breaks_it_and_names_file_and_line() {
    for (name, text, expected) in [
        (
            "src/pool/queue.rs",
            "use std::mem;\nuse axum::Router;\n",
            "src/pool/queue.rs:2: `axum` is named outside",
        ),
        (
            "src/tasks/mod.rs",
            "use {bytes::Bytes,\n    tower::{Service, util}};\n",
            "src/tasks/mod.rs:2: `tower` is named",
        ),
        ("src/cli/serve.rs", "fn f() {\n    hyper::rt::x();\n}\n", "src/cli/serve.rs:2: `hyper` is named"),
        (
            "src/engine/mod.rs",
            "use tract_onnx::prelude::TVec;\n",
            "src/engine/mod.rs:1: `tract_onnx` is named",
        ),
        ("src/tasks/classify.rs", "use image::DynamicImage;\n", "src/tasks/classify.rs:1: `image` is named"),
        ("src/text.rs", "type A = image::DynamicImage;\n", "src/text.rs:1: `image` is named"),
        ("src/text.rs", "use ::image as codec;\n", "src/text.rs:1: `image` is named"),
        ("src/http/mod.rs", "use fast_image_resize as resize;\n", "`fast_image_resize` is named"),
        (
            "src/pool/mod.rs",
            "fn f() {\n\n    std::thread::Builder::new();\n}\n",
            "src/pool/mod.rs:3: a thread starts",
        ),
        (
            "src/http/mod.rs",
            "use std::thread;\nfn f() { thread::spawn(g); }\n",
            "src/http/mod.rs:2: a thread starts",
        ),
        ("src/server.rs", "use tokio::task::spawn_blocking;\n", "src/server.rs:1: a thread starts"),
        ("src/http/mod.rs", "use tokio::runtime::Builder;\n", "src/http/mod.rs:1: a thread starts"),
        ("src/pool/mod.rs", "use crate::http::AppState;\n", "src/pool/mod.rs:1: pool imports http"),
        (
            "src/engine/mod.rs",
            "use crate::{\n    error::Error,\n    tasks::Task,\n};\n",
            "src/engine/mod.rs:3: engine imports tasks",
        ),
        ("src/image/mod.rs", "fn f() -> crate::text::Text {}\n", "src/image/mod.rs:1: image imports text"),
        ("src/error.rs", "use crate::config::Config;\n", "src/error.rs:1: error imports config"),
        (
            "src/tasks/a/b.rs",
            "use super::super::super::pool::Slot;\n",
            "src/tasks/a/b.rs:1: tasks imports pool",
        ),
        ("src/tasks/classify.rs", "use std::sync::Mutex;\n", "src/tasks/classify.rs:1: a task holds a lock"),
        ("src/tasks/classify.rs", "use tokio::sync::Notify;\n", "src/tasks/classify.rs:1: a task"),
        ("src/tasks/classify.rs", "async fn f() {}\n", "src/tasks/classify.rs:1: a task"),
        (
            "src/engine/tract/gru.rs",
            "fn f() {\n    unsafe { g() }\n}\n",
            "src/engine/tract/gru.rs:2: `unsafe`",
        ),
        ("src/attic.rs", "\n", "src/attic.rs:1: the room attic is not on the map"),
    ] {
        let said = said_of(name, text);
        assert!(said.contains(expected), "{name}: {text}\nsaid: {said:?}\nexpected: {expected}");
    }
    let long = said_of("src/text.rs", &"\n".repeat(rules::MOST_LINES + 1));
    assert!(long.starts_with(&format!("src/text.rs:{}: ", rules::MOST_LINES + 1)), "{long}");
}

#[test]
fn what_keeps_to_the_rules_is_left_alone() {
    for (name, text) in [
        ("src/http/mod.rs", "use axum::Router;\nuse crate::{pool::ModelPool, error::Error};\n"),
        ("src/server/socket.rs", "use hyper::body::Incoming;\n"),
        ("src/engine/tract/cache.rs", "use tract_onnx::prelude::TVec;\n"),
        ("src/image/decode.rs", "use image::ImageReader;\n"),
        ("src/tasks/mod.rs", "use crate::image::{self, Rect};\nfn f(x: image::Rect) {}\n"),
        ("src/tasks/mod.rs", "use crate::{error::Error, image::Rect};\n"),
        ("src/tasks/mod.rs", "mod base64;\nuse base64::decode;\nuse super::pool_of_tears::X;\n"),
        ("src/pool/worker.rs", "use std::thread::{self, JoinHandle};\nfn f() { thread::Builder::new(); }\n"),
        ("src/pool/mod.rs", "use std::thread::JoinHandle;\nfn f() { std::thread::sleep(x); }\n"),
        ("src/lib.rs", "pub mod attic;\n"),
        ("src/allocator.rs", "fn f() { unsafe { g() } }\n"),
        ("src/tensor.rs", "#![deny(unsafe_code)] // unsafe\n"),
        (
            "src/text.rs",
            "// use axum::Router;\n/* tract_onnx::x /* nested */ */\nconst A: &str = \"use crate::pool::Slot;\";\n",
        ),
        (
            "src/text.rs",
            "const A: &str = r#\"crate::http::x \" axum::y\"#; const B: char = '\"'; fn f<'a>(x: &'a str) {}\n",
        ),
        (
            "src/text.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::pool::Slot;\n    fn f() { std::thread::spawn(g); }\n}\n",
        ),
        ("src/pool/tests.rs", "use crate::http::AppState;\n"),
        ("src/engine/tract/tests/shared.rs", "use crate::tasks::Task;\n"),
    ] {
        assert_eq!(said_of(name, text), "", "{name}: {text}");
    }
}
