//! Texts: from a body to inputs.
//!
//! Invariant: every text handed on is UTF-8 and within the limit of one text.

use bytes::Bytes;
use tokio::task::yield_now;

use super::{
    extract::Form,
    json::{BYTE_ORDER_MARK, Breaks, Fields, JsonLimits, strings, wide_encoding},
    problem::{Item, Refusal},
};
use crate::{
    config::LimitsConfig,
    error::{Amount, Error},
    tasks::Input,
};

/// What several texts are called, in requests and in refusals.
const LIST: &str = "texts";

/// Cuts a body into its texts.
pub(super) async fn inputs(body: Bytes, form: &Form, limits: &LimitsConfig) -> Result<Vec<Input>, Refusal> {
    if body.is_empty() {
        return Err(Error::invalid("the body is empty; expected a text, or JSON that holds texts").into());
    }
    if *form != Form::Json {
        // Its zeros would pass for UTF-8 where the text is English.
        if let Some(encoding) = wide_encoding(&body) {
            return Err(Error::malformed(format!("the text is in {encoding}; expected UTF-8")).into());
        }
        let is_marked = body.starts_with(BYTE_ORDER_MARK);
        return Ok(vec![input(if is_marked { body.slice(BYTE_ORDER_MARK.len()..) } else { body }, limits)?]);
    }
    let fields = Fields { one: "text", many: LIST, what: "a string", breaks: Breaks::Refused };
    let json_limits = JsonLimits { depth: limits.json_depth, items: limits.items };
    let texts = strings(&body, fields, json_limits).await?;
    // The only owner of a text may take its bytes as they are.
    drop(body);
    let n_texts = texts.len();
    let mut inputs = Vec::with_capacity(n_texts);
    for (idx, text) in texts.into_iter().enumerate() {
        if idx > 0 && idx % TEXTS_PER_STEP == 0 {
            yield_now().await;
        }
        inputs.push(input(text, limits).map_err(|error| match n_texts {
            1 => Refusal::from(error),
            _ => Refusal::from(error).at(Item { list: LIST, idx }),
        })?);
    }
    Ok(inputs)
}

/// Texts that are copied before other requests get their turn: a request may hold 16 of a mebibyte.
const TEXTS_PER_STEP: usize = 4;

/// Bytes of memory that are not worth giving back.
const SMALL: usize = 512;

fn input(text: Bytes, limits: &LimitsConfig) -> Result<Input, Error> {
    let (length, limit) = (text.len() as u64, limits.text.0);
    if length > limit {
        return Err(Error::TooLarge { what: "text bytes", got: Amount::Exactly(length), limit });
    }
    let mut text = String::from_utf8(text.into()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::malformed(format!("the text is not UTF-8: byte {at} does not continue it"))
    })?;
    // The last slice of a body takes over all of its memory: a short text would keep megabytes of blanks alive.
    if text.capacity() > 2 * text.len().max(SMALL) {
        text.shrink_to_fit();
    }
    Ok(Input::text(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ByteSize, Config};

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn limits() -> LimitsConfig {
        LimitsConfig { text: ByteSize(5), ..Config::default().limits }
    }

    fn read(body: &'static [u8], form: &Form) -> Result<Vec<Input>, String> {
        run(inputs(Bytes::from_static(body), form, &limits())).map_err(|refusal| refusal.cause().into_owned())
    }

    fn text(text: &str) -> Input {
        Input::text(text)
    }

    #[test]
    fn plain_and_json_texts_are_read() {
        assert_eq!(read("né".as_bytes(), &Form::PlainText).unwrap(), [text("né")]);
        assert_eq!(read(br#"{"text": "one"}"#, &Form::Json).unwrap(), [text("one")]);
        assert_eq!(read(br#"{"texts": ["one", "two"]}"#, &Form::Json).unwrap(), [text("one"), text("two")]);
    }

    #[test]
    fn a_text_keeps_no_more_of_its_body_alive_than_it_is_long() {
        let limits = Config::default().limits;
        for blanks in [0, 1000, 1 << 20] {
            let body = format!("{{\"texts\": [\"one\", \"two\"{}]}}", " ".repeat(blanks));
            for text in run(inputs(Bytes::from(body), &Form::Json, &limits)).unwrap() {
                assert!(text.n_held() <= 2 * SMALL, "{} bytes for {text:?}", text.n_held());
            }
        }
        let mut roomy = Vec::with_capacity(1 << 20);
        roomy.extend_from_slice(b"plain");
        let plain = run(inputs(Bytes::from(roomy), &Form::PlainText, &limits)).unwrap();
        assert!(plain[0].n_held() <= 2 * SMALL);
    }

    #[test]
    fn a_text_too_long_is_named() {
        insta::assert_snapshot!(read(b"123456", &Form::PlainText).unwrap_err(), @"text bytes: 6 is more than the 5 allowed");
        insta::assert_snapshot!(read(br#"{"text": "123456"}"#, &Form::Json).unwrap_err(), @"text bytes: 6 is more than the 5 allowed");
        insta::assert_snapshot!(read(br#"{"texts": ["1", "123456"]}"#, &Form::Json).unwrap_err(), @"texts[1]: text bytes: 6 is more than the 5 allowed");
    }

    #[test]
    fn a_text_that_is_not_utf8_is_malformed() {
        insta::assert_snapshot!(read(b"ab\xff", &Form::PlainText).unwrap_err(), @"the text is not UTF-8: byte 2 does not continue it");
        insta::assert_snapshot!(read(b"{\"texts\": [\"a\", \"\xff\"]}", &Form::Json).unwrap_err(), @"texts[1]: the text is not UTF-8: byte 0 does not continue it");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_text_and_utf16_is_named() {
        assert_eq!(read(b"\xef\xbb\xbffine", &Form::PlainText).unwrap(), [text("fine")]);
        for utf16 in [&b"\xff\xfeo\0k\0"[..], b"\xfe\xff\0o\0k", b"o\0k\0", b"\0o\0k"] {
            assert_eq!(read(utf16, &Form::PlainText).unwrap_err(), "the text is in UTF-16; expected UTF-8");
        }
        assert_eq!(read(b"a\0", &Form::PlainText).unwrap(), [text("a\0")]);
    }

    #[test]
    fn an_empty_body_is_invalid_in_every_form() {
        for form in [Form::PlainText, Form::Json] {
            let refusal = run(inputs(Bytes::new(), &form, &limits())).unwrap_err();
            assert_eq!(refusal.kind().status, 422, "{form:?}");
        }
    }
}
