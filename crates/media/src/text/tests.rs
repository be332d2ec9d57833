//! Texts to ids: what is cut, what is refused, and that both ways give the same.

use std::sync::LazyLock;

use lepton_testkit::tokenizers;
use proptest::prelude::*;

use super::*;

fn limit(max_tokens: usize) -> Limit {
    Limit { max_tokens, side: TruncationSide::Right }
}

fn read(json: &str, max_tokens: usize) -> Tokenizer {
    Tokenizer::from_json(json.as_bytes(), limit(max_tokens)).unwrap()
}

fn plain(max_tokens: usize) -> Tokenizer {
    read(&tokenizers::plain(), max_tokens)
}

/// The ids of the whole text, however long it is, cut afterwards.
fn slowly(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = tokenizer.inner.encode(text.trim(), false).unwrap().get_ids().to_vec();
    ids.truncate(tokenizer.room);
    ids
}

#[test]
fn words_become_ids_and_unknown_ones_the_unknown_id() {
    let encoded = plain(16).encode("  A very GOOD café, films!\n").unwrap();
    assert_eq!(encoded, Encoded { ids: vec![1, 5, 2, 10, 1, 4, 6, 7], truncated: Truncated::No });
}

#[test]
fn a_text_is_cut_at_max_tokens_and_says_so() {
    let tokenizer = plain(3);
    let cut = tokenizer.encode("good good bad film").unwrap();
    assert_eq!(cut, Encoded { ids: vec![2, 2, 3], truncated: Truncated::Yes });
    let whole = tokenizer.encode("good good bad").unwrap();
    assert_eq!(whole, Encoded { ids: vec![2, 2, 3], truncated: Truncated::No });
}

#[test]
fn special_tokens_stay_around_a_text_that_is_cut() {
    let tokenizer = read(&tokenizers::bracketed(), 4);
    assert_eq!(tokenizer.encode("good").unwrap().ids, [8, 2, 9]);
    let cut = tokenizer.encode("good bad film").unwrap();
    assert_eq!(cut, Encoded { ids: vec![8, 2, 3, 9], truncated: Truncated::Yes });
    assert!(Tokenizer::from_json(tokenizers::bracketed().as_bytes(), limit(2)).is_err());
}

#[test]
fn the_files_own_cutting_and_padding_are_ignored() {
    let tokenizer = read(&tokenizers::padding(), 16);
    assert_eq!(tokenizer.encode("good bad film").unwrap().ids, [2, 3, 4]);
}

#[test]
fn a_caller_cannot_write_special_tokens() {
    let ids = plain(16).encode("good [PAD] bad").unwrap().ids;
    assert!(!ids.contains(&0), "{ids:?}");
}

#[test]
fn no_text_is_invalid() {
    for text in ["", " \n\t\u{3000}", "\u{301}\u{301}"] {
        assert!(matches!(plain(8).encode(text), Err(MediaError::Invalid(_))), "{text:?}");
    }
}

#[test]
fn a_file_that_is_no_tokenizer_is_refused() {
    assert!(Tokenizer::from_json(b"{}", limit(8)).is_err());
    assert!(Tokenizer::from_json(b"", limit(8)).is_err());
}

#[test]
fn only_the_beginning_of_a_huge_text_is_read() {
    let tokenizer = plain(256);
    let enough = 256 + MARGIN;
    let huge = [
        "very good film ".repeat(70_000),
        "good".repeat(260_000),
        "\u{301}".repeat(500_000) + " good",
        "<br />".repeat(170_000) + " good",
        "e\u{301}".repeat(350_000),
    ];
    for text in huge {
        let (part, _) = tokenizer.encode_enough(&text).unwrap();
        assert!(part.len() <= enough * MOST_BYTES);
        match tokenizer.encode(&text) {
            Ok(encoded) => assert_eq!(encoded.truncated, Truncated::Yes),
            Err(error) => assert!(matches!(error, MediaError::Invalid(_)), "{error}"),
        }
    }
    let prose = "very good film ".repeat(70_000);
    let (part, _) = tokenizer.encode_enough(&prose).unwrap();
    assert!(part.len() <= enough * FIRST_BYTES);
}

#[test]
fn a_beginning_ends_at_white_space_or_else_at_a_character() {
    assert_eq!(beginning("good film", 9), "good film");
    assert_eq!(beginning("good film", 8), "good");
    assert_eq!(beginning("ééé", 3), "é");
}

/// Says whether the short way was taken, after holding it to the library's.
fn both_ways(tokenizer: &Tokenizer, text: &str) -> bool {
    let text = text.trim();
    let Some(found) = tokenizer.encode_plainly(text) else { return false };
    let expected = tokenizer.encode_by_library(text).unwrap();
    assert_eq!(found.ids, expected.ids, "{text:?}");
    // Of a text without a token within reach it does not matter.
    assert!(found.ids.is_empty() || found.truncated == expected.truncated, "{text:?}");
    true
}

fn shipped(max_tokens: usize) -> Tokenizer {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/sentiment/tokenizer.json");
    Tokenizer::from_json(&std::fs::read(path).unwrap(), limit(max_tokens)).unwrap()
}

#[test]
fn the_short_way_gives_what_the_library_gives() {
    let tokenizers = [shipped(256), shipped(7), plain(16)].into_iter();
    let with_marks = [tokenizers::bracketed(), tokenizers::bert()];
    let all = tokenizers.chain(with_marks.map(|json| read(&json, 12)));
    for tokenizer in all {
        for text in [
            "A gorgeous, witty, seductive movie.",
            "It isn't that she'll DON'T: n't 'tis 'em they've -LRB- sic -RRB- ``so'' <br /><br>and/or\\/ \\*",
            "\u{201c}Good\u{201d} \u{2014} it\u{2019}s a 1990\u{2013}95 film",
            "good\u{0}bad\tfilm\u{b}very\u{7f}good ##s ##good",
            "@anonymous good film (@you) me@example.com see http://t.co/x?a=b, www.example.com. sooo goooood",
            "5/5 1 star, 10 / 10 and 9 out of ten; 24/5/10 &amp; &lt;3 #films &quot;good&quot;&nbsp;film",
            "...!!! ?? 3.14 $5 a_b __ x-y",
            &"antidisestablishmentarianism ".repeat(3),
            &"z".repeat(200),
            &"good ".repeat(400),
            &format!("{}good", "! ".repeat(70_000)),
            &" \n".repeat(100_000),
        ] {
            assert!(both_ways(&tokenizer, text), "{text:.40} takes the long way");
        }
        for text in ["caf\u{e9}", "\u{4e2d}\u{6587}", "\u{ff21}", "e\u{301}"] {
            assert!(!both_ways(&tokenizer, text), "{text} takes the short way");
        }
    }
}

#[test]
fn a_tokenizer_with_an_unknown_part_takes_the_long_way() {
    for (part, other) in [
        ("\"type\":\"Lowercase\"", "\"type\":\"Prepend\",\"prepend\":\"x\""),
        ("\"behavior\":\"Removed\"", "\"behavior\":\"Isolated\""),
        ("\"special\":true", "\"special\":false"),
    ] {
        let json = tokenizers::plain();
        assert!(json.contains(part), "{json}");
        let tokenizer = read(&json.replace(part, other), 16);
        assert!(tokenizer.plain.is_none(), "{other}");
    }
}

static SHIPPED: LazyLock<Tokenizer> = LazyLock::new(|| shipped(256));

proptest! {
    #[test]
    fn any_plain_text_has_the_same_ids_on_both_ways_of_what_ships(
        text in "([ -~]|\\s|n't|@| @good|[0-9]{1,2}|/| ?/ ?|10/10|5/5| out of |one|star|s|oo|lll|www\\.|https?://|&amp;|&lt;|\u{2019}|\u{2014}|good|GOOD){0,60}",
    ) {
        let text: String = text.chars().filter(|c| c.is_ascii() || matches!(c, '\u{2019}' | '\u{2014}')).collect();
        prop_assert!(text.trim().is_empty() || both_ways(&SHIPPED, &text));
    }

    #[test]
    fn any_plain_text_has_the_same_ids_on_both_ways(
        text in "([ -~]|[\\x00-\\x7f]|n't|'s|<br />|@good|5/5|1 star|sooo|www\\.|http://|&amp;|\u{2019}|\u{201c}|\u{2014}|good|films|GOOD){0,80}",
        max_tokens in 1usize..40,
    ) {
        prop_assert!(text.trim().is_empty() || both_ways(&plain(max_tokens), &text));
    }

    #[test]
    fn reading_less_keeps_the_ids(
        words in prop::collection::vec("good|bad|films|\u{e9}t\u{e9}|[a-z]{1,40}|!|  |\n|<br />", 1..400),
        glue in "| ", max_tokens in 1usize..40,
    ) {
        let text = words.join(&glue);
        let tokenizer = plain(max_tokens);
        // A run of more than MOST_BYTES without a token may end the reading early.
        if let Ok(encoded) = tokenizer.encode(&text) {
            let expected = slowly(&tokenizer, &text);
            prop_assert_eq!(&encoded.ids[..], &expected[..encoded.ids.len()]);
        }
    }
}

#[test]
fn a_file_that_the_library_panics_about_is_refused() {
    // Found by fuzzing.
    let json = r#"{"decoder":,"normalizer":null,"pre_tokenizer":null,"post_processor":null}"#;
    let error = Tokenizer::from_json(json.as_bytes(), limit(16)).err().unwrap();
    assert!(!error.is_empty());
}
