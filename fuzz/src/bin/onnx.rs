//! ONNX files, without files beside them.
#![cfg_attr(feature = "libfuzzer", no_main)]

use lepton::engine::tract::TractEngine;

libfuzzer_sys::fuzz_target!(
    init: {
        // The engine catches what the library below it panics about, and refuses the file: only what is not
        // caught is a finding.
        let _ = std::panic::take_hook();
    },
    |data: &[u8]| {
        let _ = TractEngine::load(data, None);
    }
);

#[cfg(not(feature = "libfuzzer"))]
fn main() {}
