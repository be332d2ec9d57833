//! Files of tokenizers, and texts to split with them: a JSON file, a line of three dashes, a text.
#![cfg_attr(feature = "libfuzzer", no_main)]

use lepton::{
    manifest::TruncationSide,
    text::{Limit, Tokenizer},
};

const RULE: &[u8] = b"\n---\n";
const MAX_TOKENS: usize = 64;
const LIMIT: Limit = Limit { max_tokens: MAX_TOKENS, side: TruncationSide::Right };

libfuzzer_sys::fuzz_target!(
    init: {
        // As in the ONNX target: what the library panics about is caught and refused.
        let _ = std::panic::take_hook();
    },
    |data: &[u8]| {
        let rule = data.windows(RULE.len()).position(|window| window == RULE);
        let (json, text) = match rule {
            Some(at) => (&data[..at], &data[at + RULE.len()..]),
            None => (data, data),
        };
        if let Ok(tokenizer) = Tokenizer::from_json(json, LIMIT)
            && let Ok(encoded) = tokenizer.encode(&String::from_utf8_lossy(text))
        {
            assert!((1..=MAX_TOKENS).contains(&encoded.ids.len()), "{} ids", encoded.ids.len());
        }
    }
);

#[cfg(not(feature = "libfuzzer"))]
fn main() {}
