//! Model files that harm: whatever they do, `lepton check` and `lepton serve` end with an exit code, and
//! name the model and the reason.
//!
//! Each file is loaded by the real program in processes of their own, so that an abort is seen and ends no
//! test. `MUTANTS=5000` tries as many mutants as that.

mod mutants;
mod seeds;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use lepton_testkit::onnx::{Axis, Element, Graph, Node, convolutional};
use tempfile::TempDir;

/// Mutants that every test run tries.
const FEW: usize = 60;

/// Mutants of one run of the program.
const TOGETHER: usize = 60;

pub(crate) const MANIFEST: &str = r#"description = "hostile"
licence = "none"
precision = "f32"
[task.image-classification]
labels = ["a", "b", "c"]
[task.image-classification.input]
name = "image"
width = 8
height = 8
color = "gray"
mean = [0.0]
std = [1.0]
"#;

/// A folder of models, one for each network.
fn models(networks: impl IntoIterator<Item = (String, Vec<u8>)>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, network) in networks {
        let model = folder.path().join(&name);
        fs::create_dir_all(model.join("1")).unwrap();
        fs::write(model.join("model.toml"), MANIFEST).unwrap();
        fs::write(model.join("1/model.onnx"), network).unwrap();
    }
    folder
}

/// Runs the program on a folder of models, with little time and memory for each.
pub(crate) fn lepton(command: &str, models: &Path, settings: &[(&str, &str)]) -> Output {
    let mut lepton = Command::new(env!("CARGO_BIN_EXE_lepton"));
    lepton.args([command, "--listen", "127.0.0.1:0", "--models"]).arg(models);
    lepton.env("LEPTON_MODELS_LOAD_TIMEOUT", "10s").env("LEPTON_MODELS_LOAD_MEMORY", "512MiB");
    lepton.envs(settings.iter().copied()).stdin(Stdio::null());
    // A folder without a config.toml.
    lepton.current_dir(env!("CARGO_TARGET_TMPDIR")).output().unwrap()
}

/// What the program said, and that it ended by itself with this code.
pub(crate) fn told(output: &Output, code: i32) -> String {
    let both = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert_eq!(output.status.code(), Some(code), "{}", both.concat());
    assert!(!both[1].contains("panicked at"), "{}", both[1]);
    both.concat()
}

/// `image` f32 [batch, 1, 8, 8] to `logits` through one operator, for which `rest` makes what else it reads.
fn one(node: Node, rest: impl FnOnce(Graph) -> Graph) -> Vec<u8> {
    let axes = [Axis::Named("batch"), Axis::Of(1), Axis::Of(8), Axis::Of(8)];
    let graph = rest(Graph::default().input("image", Element::Float, &axes)).node(node);
    graph.output("logits", Element::Float, &[Axis::Named("batch"), Axis::Of(3)]).encode()
}

/// Sizes that no attribute names, computed of each other, so that the census cannot see them: two gigabytes.
pub(crate) fn computed() -> Vec<u8> {
    let graph = Graph::default()
        .input("image", Element::Float, &[Axis::Of(1), Axis::Of(1), Axis::Of(8), Axis::Of(8)])
        .longs("n", &[2], &[1 << 8, 1 << 6])
        .node(Node::new("Mul", &["n", "n"], &["sizes"]))
        .node(Node::new("ConstantOfShape", &["sizes"], &["filled"]))
        .node(Node::new("ReduceSum", &["filled"], &["sum"]))
        .node(Node::new("Add", &["image", "sum"], &["logits"]));
    graph.output("logits", Element::Float, &[Axis::Of(1), Axis::Of(3)]).encode()
}

#[test]
fn a_file_that_takes_all_memory_is_refused_with_its_name_by_check_and_serve() {
    let models = models([("greedy".to_owned(), computed())]);
    let check = told(&lepton("check", models.path(), &[]), 1);
    assert!(check.contains("greedy 1 does not load: ") && check.contains("of memory"), "{check}");
    assert!(check.contains("1 of 1 models cannot be served: greedy"), "{check}");
    let serve = told(&lepton("serve", models.path(), &[]), 1);
    assert!(serve.contains("greedy") && serve.contains("of memory"), "{serve}");
}

#[test]
fn a_model_beside_one_that_harms_is_checked_all_the_same() {
    let good = convolutional(Axis::Named("batch"), 8);
    let models = models([("bad".to_owned(), computed()), ("good".to_owned(), good)]);
    let check = told(&lepton("check", models.path(), &[]), 1);
    assert!(check.contains("1 of 2 models cannot be served: bad"), "{check}");
    assert!(check.contains("gives logits: f32 [batch, 3]"), "{check}");
}

#[test]
fn a_model_that_takes_longer_than_it_may_is_refused_with_its_name() {
    // The kernel counts CPU time in whole seconds, so the wall clock decides here.
    let good = convolutional(Axis::Named("batch"), 8);
    let models = models([("slow".to_owned(), good)]);
    let check = told(&lepton("check", models.path(), &[("LEPTON_MODELS_LOAD_TIMEOUT", "1ms")]), 1);
    assert!(check.contains("slow 1 does not load: loading it takes more than 4ms"), "{check}");
}

#[test]
fn without_a_trial_a_model_is_loaded_as_before() {
    let good = convolutional(Axis::Named("batch"), 8);
    let models = models([("plain".to_owned(), good)]);
    let check = told(&lepton("check", models.path(), &[("LEPTON_MODELS_LOAD_TIMEOUT", "0s")]), 0);
    assert!(check.contains("gives logits: f32 [batch, 3]"), "{check}");
}

/// 20 million operators in 40 MB would take gigabytes once they are decoded.
#[test]
fn operators_of_no_bytes_are_refused_before_they_take_memory() {
    let empty = [0x0a, 0].repeat(1_000_000);
    let mut network = vec![0x3a];
    let mut len = empty.len();
    while len >= 0x80 {
        network.push(len as u8 | 0x80);
        len >>= 7;
    }
    network.push(len as u8);
    network.extend(empty);
    let models = models([("empty".to_owned(), network)]);
    let check = told(&lepton("check", models.path(), &[]), 1);
    assert!(check.contains("it has 20001 operators or more, 20000 are allowed"), "{check}");
}

#[test]
fn no_mutant_of_a_network_ends_the_program_or_holds_it() {
    let n = std::env::var("MUTANTS").ok().and_then(|n| n.parse().ok()).unwrap_or(FEW);
    let (mut n_refused, mut ended) = (0, Vec::new());
    for first in (0..n).step_by(TOGETHER) {
        let numbers: Vec<usize> = (first..n.min(first + TOGETHER)).collect();
        let name = |number: &usize| format!("m{number}");
        let models = models(numbers.iter().map(|number| (name(number), mutants::mutant(*number as u64))));
        let output = lepton("check", models.path(), &[]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1)), "{code:?}: {}", String::from_utf8_lossy(&output.stderr));
        for number in &numbers {
            let refused = format!("  {} 1 does not load: ", name(number));
            let row = format!("{} ", name(number));
            let line = text.lines().find(|line| line.starts_with(&refused) || line.starts_with(&row));
            let line = line.unwrap_or_else(|| panic!("{number} is not told of: {text}"));
            n_refused += usize::from(line.starts_with(&refused));
            if line.contains("ends the process") || line.contains("takes more than") {
                ended.push(line.to_owned());
            }
        }
        keep(&numbers, &ended);
    }
    eprintln!("{n} mutants, {n_refused} refused, {} of them by the limits of their process:", ended.len());
    ended.iter().for_each(|line| eprintln!("{line}"));
    assert!(n_refused * 4 > n, "{n_refused} of {n}: the mutations do not bite");
    // What the census lets through is for the limits of the process, and should be rare.
    assert!(ended.len() * 20 <= n.max(100), "{ended:#?}");
}

/// Writes the mutants that only the limits of their process ended, for somebody to look at.
fn keep(numbers: &[usize], ended: &[String]) {
    let Some(folder) = std::env::var_os("MUTANTS_DIR").map(PathBuf::from) else { return };
    for number in numbers {
        if ended.iter().any(|line| line.starts_with(&format!("  m{number} "))) {
            fs::write(folder.join(format!("m{number}.onnx")), mutants::mutant(*number as u64)).unwrap();
        }
    }
}
