//! Every example of README and docs/, run as a reader would run it, against what the page says that it prints.
//!
//! A block of `sh` is run by a shell in a folder with the repository's files; a block of `json`, `http` or `text` that
//! follows it is what it printed. `toml` is read as the settings or the manifest that it is, and the metrics that
//! `promql` names exist. A block that cannot be run says so on the line before it, with the reason
//! (`<!-- not run: ... -->`); one that shows what a command printed which the page does not show names that command
//! (`<!-- prints: ... -->`).

mod compare;
mod page;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use lepton::{config::Options, pipelines::PipelineSpec, repository::Manifest};
use tempfile::TempDir;

use self::page::{CodeBlock, Note, blocks, links};
use crate::support::{
    client::{exchange, get},
    process::Lepton,
};

/// The address that pages name.
const SHOWN: &str = "127.0.0.1:8080";

/// The origins that docs/requests.md sets before it shows a preflight.
const ORIGINS: &str = "https://app.example.com,http://localhost:3000";

/// What pages call `lepton`: the program, with loads that are short unless a page says how long.
const PROGRAM: &str = concat!(
    "#!/bin/sh\ncase \"$1 $*\" in\n\"bench \"*--duration*) ;;\n",
    "\"bench \"*) set -- \"$@\" --duration 2s --warm-up 100ms ;;\nesac\nexec \"",
    env!("CARGO_BIN_EXE_lepton"),
    "\" \"$@\"\n"
);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README and every page below docs/, by their paths in the repository.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|it| it == "md")).collect();
    paths.push(root().join("README.md"));
    paths.sort();
    assert!(paths.len() > 5, "{paths:?}");
    let named = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root()).unwrap().to_owned(), text)
    };
    paths.into_iter().map(named).collect()
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Where a reader stands: a folder with the repository's files, and a server.
struct Reader {
    folder: TempDir,
    address: SocketAddr,
    metrics: String,
}

impl Reader {
    fn new(server: &Lepton) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["docs", "models", "benches"] {
            symlink(root().join(name), folder.path().join(name)).unwrap();
        }
        let program = folder.path().join("bin/lepton");
        fs::create_dir(folder.path().join("bin")).unwrap();
        fs::write(&program, PROGRAM).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let metrics = exchange(server.address, &get("/metrics")).text().to_owned();
        Self { folder, address: server.address, metrics }
    }

    /// Runs a script and returns what it printed, its addresses as pages write them.
    fn run(&self, script: &str) -> Result<String, String> {
        let address = self.address.to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &script.replace(SHOWN, &address)])
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", self.folder.path().join("bin").display()))
            .env("LEPTON_SERVER_LISTEN", &address)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("no shell: {error}"))?;
        let [printed, said] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        match output.status.success() {
            true => Ok(printed.replace(&address, SHOWN)),
            false => Err(format!("it ended with {}: {printed}{said}", output.status)),
        }
    }

    /// Runs or reads one block; `printed` is what the last one printed that was run.
    fn read(&self, block: &CodeBlock, printed: &mut Option<String>) -> Result<(), String> {
        if let Some(Note::NotRun(_)) = block.note {
            *printed = None;
            return Ok(());
        }
        if let Some(Note::PrintedBy(command)) = &block.note {
            *printed = Some(self.run(command)?);
        }
        match block.language.as_str() {
            "sh" => {
                *printed = Some(self.run(&block.text)?);
                Ok(())
            }
            "json" | "http" | "text" => {
                let printed = printed.take();
                let printed =
                    printed.ok_or("no command before it prints it; name one with `<!-- prints: ... -->`")?;
                shown(block, &printed)
            }
            "toml" => read_as_toml(&block.text),
            "promql" => self.metrics_exist(&block.text),
            other => Err(format!("nobody can tell whether a block of {other:?} is right")),
        }
    }

    fn metrics_exist(&self, queries: &str) -> Result<(), String> {
        let words = queries.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let mut names = words.filter(|word| word.starts_with("lepton_")).peekable();
        names.peek().ok_or("it names no metric")?;
        match names.find(|name| !self.metrics.contains(*name)) {
            Some(name) => Err(format!("there is no metric {name}")),
            None => Ok(()),
        }
    }
}

/// Holds what was printed to what a page shows.
fn shown(block: &CodeBlock, printed: &str) -> Result<(), String> {
    match block.language.as_str() {
        "json" => {
            let value = |text: &str| {
                serde_json::from_str(text.trim())
                    .map_err(|error| format!("this is no JSON ({error}): {text}"))
            };
            compare::json(&value(&block.text)?, &value(printed)?, "$")
        }
        _ => compare::text(&block.text, printed),
    }
}

/// Reads settings, a manifest or a pipeline as the program reads them.
fn read_as_toml(text: &str) -> Result<(), String> {
    match (text.contains("[task."), text.contains("[[readers]]")) {
        (true, _) => Manifest::parse(text).map(|_| ()),
        (_, true) => PipelineSpec::parse(text).map(|_| ()),
        _ => Options::from_toml("config.toml", text)
            .and_then(Options::resolve)
            .map(|_| ())
            .map_err(|error| error.to_string()),
    }
}

#[test]
fn every_example_does_what_its_page_says() {
    if let Some(missing) = ["bash", "curl", "base64", "sed"].into_iter().find(|program| !is_there(program)) {
        eprintln!("skipped: {missing} is not there, and the examples need it");
        return;
    }
    let server = Lepton::start_with(&[("LEPTON_SERVER_CORS", ORIGINS)]);
    let (mut wrong, mut n_read) = (Vec::new(), 0);
    for (path, text) in pages() {
        let reader = Reader::new(&server);
        let blocks = blocks(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut printed = None;
        for block in &blocks {
            n_read += usize::from(!matches!(block.note, Some(Note::NotRun(_))));
            if let Err(error) = reader.read(block, &mut printed) {
                wrong.push(format!("{}:{}: {error}", path.display(), block.line));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(n_read > 20, "only {n_read} examples were found");
}

#[test]
fn links_lead_to_files_of_the_repository() {
    for (path, text) in pages() {
        for link in links(&text) {
            let target = root().join(&path).parent().unwrap().join(link);
            assert!(target.exists(), "{} links to {link}, which is not there", path.display());
        }
    }
}

#[test]
fn readme_fits_on_a_few_screens() {
    let n_lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(n_lines <= 200, "README.md has {n_lines} lines; put what is more into docs/");
}

#[test]
fn a_snippet_that_the_program_would_refuse_is_found() {
    read_as_toml("[server]\ncors = ['http://localhost:3000']\n").unwrap();
    assert!(read_as_toml("[server]\ncorse = []\n").is_err());
    assert!(read_as_toml("[limits]\nbody = '100MiB'\n").is_err());
    assert!(read_as_toml("[task.image-classification]\nlabel = 'labels.txt'\n").is_err());
}
