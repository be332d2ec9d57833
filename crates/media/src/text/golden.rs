//! Tokenizers of every family, held to the ids that the library gives which made them: `tokenizers` for
//! Python, with Oniguruma. `golden/families.py` wrote the golden file.

use serde::Deserialize;
use serde_json::Value;

use super::{Limit, Tokenizer, TruncationSide};

#[derive(Deserialize)]
struct Golden {
    texts: Vec<String>,
    /// What the tokenizers name by its number, for many have the same.
    models: Vec<Value>,
    families: Vec<Family>,
}

#[derive(Deserialize)]
struct Family {
    name: String,
    /// Nothing for a tokenizer that ships: its file is the one of the repository.
    tokenizer: Option<Value>,
    /// Of the ids of each text; 0 for a text that holds nothing to read.
    hashes: Vec<u32>,
    /// The ids of the first text.
    first: Vec<u32>,
}

impl Family {
    fn read(&self, limit: Limit) -> Tokenizer {
        let json = match &self.tokenizer {
            Some(tokenizer) => tokenizer.to_string().into_bytes(),
            None => {
                let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(&self.name);
                std::fs::read(folder.join("tokenizer.json")).unwrap()
            }
        };
        Tokenizer::from_json(&json, limit).unwrap_or_else(|reason| panic!("{}: {reason}", self.name))
    }
}

fn golden() -> Golden {
    let packed = include_bytes!("../../golden/families.zlib");
    let json = miniz_oxide::inflate::decompress_to_vec_zlib(packed).unwrap();
    let mut golden: Golden = serde_json::from_slice(&json).unwrap();
    for tokenizer in golden.families.iter_mut().filter_map(|family| family.tokenizer.as_mut()) {
        let number = tokenizer["model"].as_u64().unwrap() as usize;
        tokenizer["model"] = golden.models[number].clone();
    }
    golden
}

/// FNV-1a over the ids, in 32 bits.
fn hash(ids: &[u32]) -> u32 {
    ids.iter().fold(0x811c_9dc5, |found: u32, id| (found ^ id).wrapping_mul(0x0100_0193))
}

#[test]
fn every_family_splits_every_text_as_the_library_that_made_it() {
    let Golden { texts, families, .. } = golden();
    let limit = Limit { max_tokens: 8192, side: TruncationSide::Right };
    let mut wrong = Vec::new();
    for family in &families {
        let tokenizer = family.read(limit);
        assert_eq!(family.hashes.len(), texts.len());
        if tokenizer.encode(&texts[0]).unwrap().ids != family.first {
            wrong.push(format!("{}: {:?}", family.name, texts[0]));
        }
        for (text, expected) in texts.iter().zip(&family.hashes) {
            let found = tokenizer.encode(text).map_or(0, |encoded| hash(&encoded.ids));
            if found != *expected {
                wrong.push(format!("{}: {text:?}", family.name));
            }
        }
    }
    assert!(
        families.len() >= 50 && texts.len() >= 100,
        "{} tokenizers, {} texts",
        families.len(),
        texts.len()
    );
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), families.len() * texts.len(), wrong.join("\n"));
}

#[test]
fn the_short_way_gives_these_ids_too_wherever_it_is_taken() {
    let Golden { texts, families, .. } = golden();
    let mut taken = 0;
    for family in &families {
        let tokenizer = family.read(Limit { max_tokens: 8192, side: TruncationSide::Right });
        // Parts of the texts as well: few of them are plain to their ends.
        let parts =
            texts.iter().flat_map(|text| text.split_inclusive(' ')).chain(texts.iter().map(String::as_str));
        for text in parts {
            let Some(found) = tokenizer.encode_plainly(text) else { continue };
            taken += 1;
            let expected = tokenizer.encode_by_library(text).unwrap();
            assert_eq!(found.ids, expected.ids, "{}: {text:?}", family.name);
        }
    }
    assert!(taken > 1000, "{taken}");
}

#[test]
fn what_is_cut_are_the_first_or_the_last_tokens_of_the_whole_text() {
    let Golden { texts, families, .. } = golden();
    let whole = texts[..48].join(" \n");
    for family in &families {
        let read = |max_tokens, side| family.read(Limit { max_tokens, side });
        let all = read(1 << 20, TruncationSide::Right).encode(&whole).unwrap().ids;
        let special = read(1 << 20, TruncationSide::Right);
        let [before, behind] = &special.around;
        let inside = &all[before.len()..all.len() - behind.len()];
        for room in [1, 2, 40, inside.len() - 1].into_iter().filter(|room| *room < inside.len()) {
            let max_tokens = room + before.len() + behind.len();
            for (side, kept) in [
                (TruncationSide::Right, &inside[..room]),
                (TruncationSide::Left, &inside[inside.len() - room..]),
            ] {
                let cut = read(max_tokens, side).encode(&whole).unwrap();
                let expected = [before, kept, behind].concat();
                assert_eq!(cut.ids, expected, "{}: {room} tokens, {side:?}", family.name);
                assert_eq!(
                    cut.truncated,
                    super::Truncated::Yes,
                    "{}: {room} tokens of {}, {side:?}",
                    family.name,
                    inside.len()
                );
            }
        }
    }
}
