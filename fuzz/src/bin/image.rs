//! Bytes of a picture: every decoder, within small limits.
#![cfg_attr(feature = "libfuzzer", no_main)]

use lepton::image::{Channels, ImageLimits, Picture};

const LIMITS: ImageLimits = ImageLimits { pixels: 1 << 20, side: 4096, memory: 64 << 20 };

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for wanted in [Channels::Rgb, Channels::Gray] {
        if let Ok(picture) = Picture::decode(data, LIMITS, wanted) {
            let pixels = u64::from(picture.width()) * u64::from(picture.height());
            assert!(pixels > 0 && pixels <= LIMITS.pixels, "{picture:?}");
            assert_eq!(picture.n_bytes() as u64, pixels * picture.channels().count() as u64, "{picture:?}");
        }
    }
});

#[cfg(not(feature = "libfuzzer"))]
fn main() {}
