//! Images: from a body to inputs.
//!
//! Invariant: no pixel is decoded here, and no base64: a worker does that, and is charged for it.

use bytes::Bytes;

use super::{
    extract::Form,
    json::{Breaks, Fields, JsonLimits, strings},
    multipart::{Encoding, Expected, Part, parts},
};
use crate::{config::LimitsConfig, error::Error, tasks::Input};

/// What several images are called, in requests and in refusals.
const LIST: &str = "images";

/// Cuts a body into its images.
pub(super) async fn inputs(body: Bytes, form: &Form, limits: &LimitsConfig) -> Result<Vec<Input>, Error> {
    if body.is_empty() {
        return Err(Error::invalid(
            "the body is empty; expected an image, or a form or JSON that holds images",
        ));
    }
    match form {
        Form::Image | Form::PlainText => Ok(vec![Input::image(body)]),
        Form::Multipart(boundary) => {
            let expected = Expected { field: "image", many: LIST, most: limits.items };
            let input = |Part { content, encoding }| match encoding {
                Encoding::Plain => Input::image(content),
                Encoding::Base64 => Input::image_base64(content),
            };
            Ok(parts(&body, boundary, expected).await?.into_iter().map(input).collect())
        }
        Form::Json => {
            let fields = Fields { one: "image", many: LIST, what: "a base64 string", breaks: Breaks::Kept };
            let limits = JsonLimits { depth: limits.json_depth, items: limits.items };
            Ok(strings(&body, fields, limits).await?.into_iter().map(Input::image_base64).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, error::Amount};

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn read(body: &str, form: &Form) -> Result<Vec<Input>, Error> {
        run(inputs(Bytes::copy_from_slice(body.as_bytes()), form, &Config::default().limits))
    }

    #[test]
    fn a_raw_body_is_one_image() {
        assert_eq!(read("jpeg", &Form::Image).unwrap(), [Input::image(&b"jpeg"[..])]);
    }

    #[test]
    fn base64_stays_as_it_was_and_where_it_was() {
        let body = Bytes::from_static(br#"{"images": ["QUJD", "a\/b="]}"#);
        let inputs = run(inputs(body.clone(), &Form::Json, &Config::default().limits)).unwrap();
        let base64 = |text: &'static str| Input::image_base64(text);
        assert_eq!(inputs, [base64("QUJD"), base64("a/b=")]);
        assert!(body.as_ptr_range().contains(&inputs[0].encoded().unwrap().as_ptr()));
    }

    #[test]
    fn a_form_gives_its_parts() {
        let part = "--X\r\ncontent-disposition: form-data; name=image\r\n\r\n";
        let body = format!("{part}one\r\n{part}two\r\n--X--");
        assert_eq!(read(&body, &Form::Multipart("X".to_owned())).unwrap().len(), 2);
    }

    #[test]
    fn an_empty_body_is_invalid_in_every_form() {
        for form in [Form::Image, Form::Json, Form::Multipart("X".to_owned())] {
            assert!(matches!(read("", &form), Err(Error::Invalid(_))), "{form:?}");
        }
    }

    #[test]
    fn more_images_than_allowed_are_too_large() {
        let limits = LimitsConfig { items: 1, ..Config::default().limits };
        let body = Bytes::from_static(br#"{"images": ["", ""]}"#);
        let error = run(inputs(body, &Form::Json, &limits)).unwrap_err();
        assert_eq!(error, Error::TooLarge { what: "images", got: Amount::More, limit: 1 });
    }
}
