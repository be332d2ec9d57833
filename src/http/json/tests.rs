//! Bodies as callers write them, sound and broken.

use proptest::prelude::*;

use super::*;

const TEXTS: Fields = Fields { one: "text", many: "texts", what: "a string", breaks: Breaks::Refused };
const LIMITS: JsonLimits = JsonLimits { depth: 32, items: 3 };

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn read(body: impl AsRef<[u8]>) -> Result<Vec<Bytes>, Error> {
    run(strings(&Bytes::copy_from_slice(body.as_ref()), TEXTS, LIMITS))
}

fn malformed(body: impl AsRef<[u8]>) -> String {
    match read(body) {
        Err(Error::Malformed(text)) => {
            text.trim_end_matches(r#"; expected {"text": a string} or {"texts": [a string, ..]}"#).to_owned()
        }
        other => panic!("expected a malformed body, found {other:?}"),
    }
}

fn invalid(body: &str) -> String {
    match read(body) {
        Err(Error::Invalid(text)) => text.into_owned(),
        other => panic!("expected invalid input, found {other:?}"),
    }
}

#[test]
fn one_and_many_are_read() {
    assert_eq!(read(r#"{"text": "fine"}"#).unwrap(), ["fine"]);
    assert_eq!(read(" {\"texts\" :\r\n[ \"a\" , \"\",\t\"b\"] } ").unwrap(), ["a", "", "b"]);
    assert_eq!(read(r#"{"te\u0078t": "escaped name"}"#).unwrap(), ["escaped name"]);
}

#[test]
fn escapes_are_resolved() {
    let body = r#"{"text": "a\"\\\/\b\f\n\r\t\u00e9\uD83D\ude00z"}"#;
    assert_eq!(read(body).unwrap(), ["a\"\\/\u{8}\u{c}\n\r\té😀z"]);
}

#[test]
fn a_string_without_escapes_is_a_slice_of_the_body() {
    let body = Bytes::from_static(br#"{"texts": ["plain", "with \"escape\""]}"#);
    let strings = run(strings(&body, TEXTS, LIMITS)).unwrap();
    assert!(body.as_ptr_range().contains(&strings[0].as_ptr()));
    assert!(!body.as_ptr_range().contains(&strings[1].as_ptr()));
}

#[test]
fn strings_longer_than_a_step_are_whole() {
    for unit in ["a", "\\/", "\\\"", "\\u00e9", "é"] {
        let body = format!("{{\"text\": \"{}\"}}", unit.repeat(3 * STEP / unit.len()));
        let want: String =
            serde_json::from_str::<serde_json::Value>(&body).unwrap()["text"].as_str().unwrap().into();
        assert!(read(&body).unwrap() == [want], "{unit}");
    }
}

#[test]
fn what_is_not_json_is_malformed() {
    insta::assert_snapshot!(malformed(""), @"the body is not JSON: it ends too early, at byte 0");
    insta::assert_snapshot!(malformed("{\"text\": \"a"), @"the body is not JSON: a string has no closing quote, at byte 11");
    insta::assert_snapshot!(malformed("{\"text\": \"a\""), @"the body is not JSON: a field is followed by neither , nor }, at byte 12");
    insta::assert_snapshot!(malformed("{\"text\": NaN}"), @"the body is not JSON: no value starts like this, at byte 9");
    insta::assert_snapshot!(malformed("{\"text\" \"a\"}"), @"the body is not JSON: no colon after a field's name, at byte 9");
    insta::assert_snapshot!(malformed("{'text': 'a'}"), @"the body is not JSON: no field's name in quotes, at byte 2");
    insta::assert_snapshot!(malformed("{\"text\": \"a\"} x"), @"the body is not JSON: something follows the object, at byte 14");
    insta::assert_snapshot!(malformed("{\"text\": \"a\",}"), @"the body is not JSON: no field's name in quotes, at byte 14");
    insta::assert_snapshot!(malformed("{\"texts\": [\"a\",]}"), @"the body is not JSON: no value starts like this, at byte 15");
    insta::assert_snapshot!(malformed("{\"texts\": [\"a\" \"b\"]}"), @"the body is not JSON: an item is followed by neither , nor ], at byte 16");
    insta::assert_snapshot!(malformed("{\"text\": \"a\nb\"}"), @"the body is not JSON: a control character in a string; it has to be escaped, at byte 11");
    insta::assert_snapshot!(malformed(r#"{"text": "\x"}"#), @r#"the body is not JSON: an unknown escape; allowed are \" \\ \/ \b \f \n \r \t \u, at byte 12"#);
    insta::assert_snapshot!(malformed(r#"{"text": "\u12"}"#), @r#"the body is not JSON: no four hexadecimal digits after \u, at byte 16"#);
    insta::assert_snapshot!(malformed(r#"{"text": "\ud800"}"#), @r#"the body is not JSON: half of a surrogate pair after \u, at byte 16"#);
    insta::assert_snapshot!(malformed(r#"{"text": "\ud800\u0041"}"#), @r#"the body is not JSON: half of a surrogate pair after \u, at byte 22"#);
    insta::assert_snapshot!(malformed(r#"{"text": "\udc00"}"#), @r#"the body is not JSON: half of a surrogate pair after \u, at byte 16"#);
}

#[test]
fn json_that_says_something_else_is_invalid() {
    insta::assert_snapshot!(invalid("{}"), @r#"the object is empty; expected {"text": a string} or {"texts": [a string, ..]}"#);
    insta::assert_snapshot!(invalid(r#"{"txt": "a"}"#), @"unknown field `txt`; allowed are `text` and `texts`");
    insta::assert_snapshot!(invalid(r#"{"text": "a", "text": "b"}"#), @"the field `text` is given twice; once is allowed");
    insta::assert_snapshot!(invalid(r#"{"text": "a", "texts": ["b"]}"#), @"`text` and `texts` are both given; one of them is allowed");
    insta::assert_snapshot!(invalid(r#"{"text": "a", "lang": "en"}"#), @"unknown field `lang`; allowed are `text` and `texts`");
    insta::assert_snapshot!(invalid(r#"{"text": 5}"#), @r#"`text` is a number; expected {"text": a string} or {"texts": [a string, ..]}"#);
    insta::assert_snapshot!(invalid(r#"{"text": null}"#), @r#"`text` is null; expected {"text": a string} or {"texts": [a string, ..]}"#);
    insta::assert_snapshot!(invalid(r#"{"texts": "a"}"#), @r#"`texts` is a string; expected {"text": a string} or {"texts": [a string, ..]}"#);
    insta::assert_snapshot!(invalid(r#"{"texts": ["a", {}]}"#), @r#"item 1 of `texts` is an object; expected {"text": a string} or {"texts": [a string, ..]}"#);
    insta::assert_snapshot!(invalid(r#"{"texts": []}"#), @"`texts` is empty; expected 1 to 3 items, each a string");
    insta::assert_snapshot!(invalid(r#"["a"]"#), @r#"the body is a list; expected {"text": a string} or {"texts": [a string, ..]}"#);
    insta::assert_snapshot!(invalid("true"), @r#"the body is a boolean; expected {"text": a string} or {"texts": [a string, ..]}"#);
}

#[test]
fn a_byte_order_mark_is_passed_over_and_wider_encodings_are_named() {
    let json = r#"{"texts": ["a", "é"]}"#;
    assert_eq!(read([BYTE_ORDER_MARK, json.as_bytes()].concat()).unwrap(), ["a", "é"]);
    assert_eq!(read([BYTE_ORDER_MARK, b"\r\n", json.as_bytes()].concat()).unwrap(), ["a", "é"]);
    insta::assert_snapshot!(malformed([BYTE_ORDER_MARK, BYTE_ORDER_MARK].concat()), @"the body is not JSON: no value starts like this, at byte 3");
    let units: Vec<u16> = json.encode_utf16().collect();
    let narrow: [Vec<u8>; 2] = [
        units.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
        units.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
    ];
    let wide: [Vec<u8>; 2] = [
        json.chars().flat_map(|c| (c as u32).to_le_bytes()).collect(),
        json.chars().flat_map(|c| (c as u32).to_be_bytes()).collect(),
    ];
    for (body, mark) in narrow.iter().zip([[0xff, 0xfe], [0xfe, 0xff]]) {
        assert_eq!(malformed(body), "the body is in UTF-16; expected JSON in UTF-8");
        assert_eq!(
            malformed([&mark, body.as_slice()].concat()),
            "the body is in UTF-16; expected JSON in UTF-8"
        );
    }
    for (body, mark) in wide.iter().zip([&[0xff, 0xfe, 0, 0], &[0, 0, 0xfe, 0xff]]) {
        assert_eq!(malformed(body), "the body is in UTF-32; expected JSON in UTF-8");
        assert_eq!(
            malformed([mark, body.as_slice()].concat()),
            "the body is in UTF-32; expected JSON in UTF-8"
        );
    }
}

#[test]
fn breaks_that_nobody_escaped_are_kept_where_lines_mean_nothing() {
    let fields = Fields { breaks: Breaks::Kept, ..TEXTS };
    let body = Bytes::from_static(b"{\"text\": \"QUJD\r\nQUJD\n\t\"}");
    assert_eq!(run(strings(&body, fields, LIMITS)).unwrap(), ["QUJD\r\nQUJD\n\t"]);
    let other = Bytes::from_static(b"{\"text\": \"QUJD\x01\"}");
    assert!(run(strings(&other, fields, LIMITS)).is_err());
}

#[test]
fn an_item_too_many_is_too_large() {
    assert_eq!(read(r#"{"texts": ["a", "b", "c"]}"#).unwrap().len(), 3);
    let error = read(r#"{"texts": ["a", "b", "c", "d"]}"#).unwrap_err();
    assert_eq!(error, Error::TooLarge { what: "texts", got: Amount::More, limit: 3 });
}

#[test]
fn a_long_field_name_is_cut_in_the_answer() {
    let text = invalid(&format!("{{\"{}\": 1}}", "x".repeat(100_000)));
    assert!(text.len() < 300, "{}", text.len());
}

#[test]
fn deep_json_has_its_own_refusal() {
    for unit in ["[", "{\"text\":", "{\"texts\":["] {
        let text = malformed(unit.repeat(200_000));
        assert_eq!(text, "the JSON nests deeper than the 32 arrays and objects allowed");
    }
    assert_eq!(check_depth("[".repeat(32).as_bytes(), 32), Ok(()));
    assert!(check_depth("[".repeat(33).as_bytes(), 32).is_err());
    assert_eq!(check_depth("[]".repeat(1000).as_bytes(), 1), Ok(()));
    assert_eq!(check_depth(br#"["\\", "[[\"[", [1]]"#, 2), Ok(()));
    assert!(check_depth(br#"["\\", [[1]]]"#, 2).is_err());
}

proptest! {
    #[test]
    fn any_text_comes_back_as_it_was(texts in prop::collection::vec(".{0,40}", 1..4)) {
        let body = serde_json::to_vec(&serde_json::json!({ "texts": texts })).unwrap();
        prop_assert_eq!(read(body).unwrap(), texts);
    }

    #[test]
    fn what_is_read_is_what_a_parser_reads(body in r#"[ ]?\{"texts?": ?\[?"([a-z\\"/u0-9dD8cC]|\\u[0-9a-fdD]{4}){0,12}",?"?\]?\}"#) {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(&body);
        let want: Option<Vec<String>> = parsed.ok().and_then(|parsed| match parsed.get("text") {
            Some(text) => text.as_str().map(|text| vec![text.to_owned()]),
            None => serde_json::from_value(parsed["texts"].clone()).ok(),
        });
        let want = want.filter(|texts| !texts.is_empty());
        prop_assert_eq!(read(&body).is_ok(), want.is_some(), "{}", body);
        prop_assert_eq!(read(&body).unwrap_or_default(), want.unwrap_or_default());
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&body);
        let _ = read([b"{\"texts\": [\"", body.as_slice()].concat());
    }
}
