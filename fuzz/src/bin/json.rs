//! JSON bodies of both tasks, through the routes.
#![cfg_attr(feature = "libfuzzer", no_main)]

use std::sync::LazyLock;

use lepton_fuzz::Service;

static SERVICE: LazyLock<Service> = LazyLock::new(Service::start);

libfuzzer_sys::fuzz_target!(
    init: { LazyLock::force(&SERVICE); },
    |data: &[u8]| {
        SERVICE.post("/v1/text/sentiment", "application/json", data);
        SERVICE.post("/v1/vision/classify?model=face", "application/json", data);
    }
);

#[cfg(not(feature = "libfuzzer"))]
fn main() {}
