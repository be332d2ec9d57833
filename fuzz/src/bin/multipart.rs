//! Forms, through the routes. The first line of the input is the content type's boundary.
#![cfg_attr(feature = "libfuzzer", no_main)]

use std::sync::LazyLock;

use lepton_fuzz::Service;

static SERVICE: LazyLock<Service> = LazyLock::new(Service::start);

libfuzzer_sys::fuzz_target!(
    init: { LazyLock::force(&SERVICE); },
    |data: &[u8]| {
        let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
        let boundary = data[..line].iter().filter(|byte| (b' '..=b'~').contains(byte));
        let boundary: String = boundary.map(|byte| char::from(*byte)).collect();
        let content_type = format!("multipart/form-data; boundary={boundary}");
        SERVICE.post("/v1/vision/classify?model=face", &content_type, data.get(line + 1..).unwrap_or_default());
    }
);

#[cfg(not(feature = "libfuzzer"))]
fn main() {}
