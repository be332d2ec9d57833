//! ONNX files, without files beside them.
#![cfg_attr(feature = "libfuzzer", no_main)]

use std::path::Path;

use lepton::engine::{Artifact, Batching, LoadOptions, load};

libfuzzer_sys::fuzz_target!(
    init: {
        // The engine catches what the library below it panics about, and refuses the file: only what is not
        // caught is a finding.
        let _ = std::panic::take_hook();
    },
    |data: &[u8]| {
        let artifact = Artifact { file: Path::new("model.onnx"), bytes: data, folder: None };
        for batching in [Batching::Required, Batching::Declared] {
            let _ = load(&artifact, LoadOptions { batching, ..LoadOptions::default() });
        }
    }
);

#[cfg(not(feature = "libfuzzer"))]
fn main() {}
