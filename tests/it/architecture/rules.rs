//! The rules themselves.

use super::source::{Named, Place, Source};

/// Most lines of a file, its tests included.
pub(super) const MOST_LINES: usize = 450;

/// The rooms from the top down. A room imports only what stands in a line below its own.
const ROOMS: &[&[&str]] = &[
    &["main", "lib"],
    &["cli"],
    &["server"],
    &["http"],
    &["api"],
    &["repository"],
    &["pipelines"],
    &["pool"],
    &["tasks"],
    &["engine"],
    &["image", "text"],
    &["tensor"],
    // Plain data, for every room.
    &["config"],
    &["metrics"],
    &["manifest"],
    &["error", "cores", "random", "allocator"],
];

/// Libraries that only some rooms may name.
const LIBRARIES: &[(&[&str], &[&str])] = &[
    (
        &["axum", "tower", "tower_http", "hyper", "hyper_util", "http_body_util"],
        &["src/http/", "src/server.rs", "src/server/"],
    ),
    (&["mimalloc", "libmimalloc_sys"], &["src/allocator.rs"]),
    (&["tract_onnx", "tract_core", "tract_hir", "tract_nnef"], &["src/engine/tract"]),
    (
        &["image", "image_webp", "png", "jpeg_decoder", "fast_image_resize", "fax", "flate2", "weezl"],
        &["src/image.rs", "src/image/"],
    ),
];

/// What starts threads.
const STARTS: &[(&[&str], &[&str])] = &[
    (&["thread", "spawn"], &["src/pool/worker.rs"]),
    (&["thread", "Builder"], &["src/pool/worker.rs", "src/cli/logging/outlet.rs"]),
    (&["thread", "scope"], &["src/pool/worker.rs"]),
    (&["spawn_blocking"], &[]),
    (&["runtime", "Builder"], &["src/cli.rs", "src/cli/"]),
    (&["runtime", "Runtime"], &["src/cli.rs", "src/cli/"]),
];

/// The only files of this package that may say `unsafe`; the crate of kernels may, too.
const UNSAFE: &[&str] = &["src/allocator.rs"];

/// What a task does without.
const NOT_IN_TASKS: &[&str] = &["Mutex", "RwLock", "Condvar", "async", "await", "tokio"];

/// Says what breaks a rule in `source`, each with file and line.
pub(super) fn broken_by(source: &Source) -> Vec<String> {
    let mut broken = Vec::new();
    let mut tell = |line: usize, what: String| broken.push(format!("{}:{line}: {what}", source.name));
    let room = source.room();
    let rank = rank(room);
    if rank.is_none() {
        tell(
            1,
            format!(
                "the room {room} is not on the map; put it where its imports allow (tests/it/architecture/rules.rs)"
            ),
        );
    }
    if source.n_lines > MOST_LINES {
        tell(source.n_lines, format!("longer than {MOST_LINES} lines; split the file along its story"));
    }
    if source.name.starts_with("src/") && !UNSAFE.iter().any(|room| source.name.starts_with(room)) {
        for line in &source.unsafe_lines {
            tell(*line, format!("`unsafe` is said outside {}", UNSAFE.join(", ")));
        }
    }
    for Named { line, path, place } in &source.named {
        if (path.len() > 1 || *place == Place::Use)
            && let Some((library, places)) = library(path)
            && !within(source, places)
        {
            tell(*line, format!("`{library}` is named outside {}", places.join(", ")));
        }
        for (start, places) in STARTS {
            if path.windows(start.len()).any(|part| part == *start) && !within(source, places) {
                tell(
                    *line,
                    format!(
                        "a thread starts by `{}`; threads start only in pool/worker and cli/logging/outlet",
                        path.join("::")
                    ),
                );
            }
        }
        if room == "tasks" && path.iter().any(|part| NOT_IN_TASKS.contains(&part.as_str())) {
            tell(
                *line,
                format!("a task holds a lock or waits: `{}`; tasks are pure functions", path.join("::")),
            );
        }
        if let [root, other, ..] = path.as_slice()
            && root == "crate"
            && other != room
            && let (Some(from), Some(to)) = (rank, self::rank(other))
            && to <= from
        {
            tell(*line, format!("{room} imports {other}; imports run downwards only"));
        }
    }
    broken.dedup();
    broken
}

fn rank(room: &str) -> Option<usize> {
    ROOMS.iter().position(|rooms| rooms.contains(&room))
}

fn within(source: &Source, places: &[&str]) -> bool {
    places.iter().any(|place| source.name.starts_with(place))
}

/// The library that a path begins with, and where it may be named.
fn library(path: &[String]) -> Option<(&str, &'static [&'static str])> {
    let first = path.first()?;
    let (_, places) = LIBRARIES.iter().find(|(libraries, _)| libraries.contains(&first.as_str()))?;
    Some((first, places))
}
