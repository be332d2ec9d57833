//! Images: from a body to inputs, from answers to JSON.
//!
//! Invariant: no pixel is decoded here, and no base64: a worker does that, and is charged for it.

use bytes::Bytes;
use serde::Serialize;

use super::{
    extract::Form,
    json::{Fields, JsonLimits, strings},
    multipart::{Expected, parts},
    scores::ScoreBody,
};
use crate::{
    config::LimitsConfig,
    error::Error,
    image::Rect,
    task::{Input, Ranked},
};

/// What several images are called, in requests and in refusals.
pub(super) const LIST: &str = "images";

/// Cuts a body into its images.
pub(super) async fn inputs(body: Bytes, form: &Form, limits: &LimitsConfig) -> Result<Vec<Input>, Error> {
    if body.is_empty() {
        return Err(Error::invalid(
            "the body is empty; expected an image, or a form or JSON that holds images",
        ));
    }
    match form {
        Form::Image | Form::PlainText => Ok(vec![Input::Image(body)]),
        Form::Multipart(boundary) => {
            let expected = Expected { field: "image", many: LIST, most: limits.items };
            Ok(parts(&body, boundary, expected).await?.into_iter().map(Input::Image).collect())
        }
        Form::Json => {
            let fields = Fields { one: "image", many: LIST, what: "a base64 string" };
            let limits = JsonLimits { depth: limits.json_depth, items: limits.items };
            Ok(strings(&body, fields, limits).await?.into_iter().map(Input::ImageBase64).collect())
        }
    }
}

/// One image of an answer.
#[derive(Serialize)]
pub(crate) struct ImageBody<'a> {
    width: u32,
    height: u32,
    faces: [FaceBody<'a>; 1],
}

/// One region of an image, and what it shows.
#[derive(Serialize)]
struct FaceBody<'a> {
    r#box: BoxBody,
    /// How sure the detector is of the region; null where the model has none.
    confidence: Option<f32>,
    label: Option<&'a str>,
    score: Option<f32>,
    scores: Vec<ScoreBody<'a>>,
}

/// A region in pixels of the upright original.
#[derive(Serialize)]
struct BoxBody {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

impl<'a> ImageBody<'a> {
    /// An answer about one region, its scores cut to the best `top_k`.
    pub(crate) fn new((width, height): (u32, u32), region: Rect, scores: &'a Ranked, top_k: usize) -> Self {
        let Rect { x, y, width: box_width, height: box_height } = region;
        let best = scores.0.first();
        let face = FaceBody {
            r#box: BoxBody { x, y, width: box_width, height: box_height },
            confidence: None,
            label: best.map(|scored| &*scored.label),
            score: best.map(|scored| scored.score),
            scores: ScoreBody::best(scores, top_k),
        };
        Self { width, height, faces: [face] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, error::Amount, task::Scored};

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn read(body: &str, form: &Form) -> Result<Vec<Input>, Error> {
        run(inputs(Bytes::copy_from_slice(body.as_bytes()), form, &Config::default().limits))
    }

    #[test]
    fn a_raw_body_is_one_image() {
        assert_eq!(read("jpeg", &Form::Image).unwrap(), [Input::Image(Bytes::from_static(b"jpeg"))]);
    }

    #[test]
    fn base64_stays_as_it_was_and_where_it_was() {
        let body = Bytes::from_static(br#"{"images": ["QUJD", "a\/b="]}"#);
        let inputs = run(inputs(body.clone(), &Form::Json, &Config::default().limits)).unwrap();
        let base64 = |text: &'static str| Input::ImageBase64(Bytes::from_static(text.as_bytes()));
        assert_eq!(inputs, [base64("QUJD"), base64("a/b=")]);
        let Input::ImageBase64(first) = &inputs[0] else { panic!("not base64") };
        assert!(body.as_ptr_range().contains(&first.as_ptr()));
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

    #[test]
    fn an_answer_names_size_box_and_ranked_scores() {
        let scored = |label: &str, score| Scored { label: label.into(), score };
        let ranked = Ranked(vec![scored("happiness", 0.9), scored("neutral", 0.1)]);
        let region = Rect { x: 0, y: 0, width: 64, height: 48 };
        let image = ImageBody::new((64, 48), region, &ranked, 1);
        insta::assert_snapshot!(serde_json::to_string(&image).unwrap(), @r#"{"width":64,"height":48,"faces":[{"box":{"x":0,"y":0,"width":64,"height":48},"confidence":null,"label":"happiness","score":0.9,"scores":[{"label":"happiness","score":0.9}]}]}"#);
    }
}
