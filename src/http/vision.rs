//! Images: from a body to inputs, from answers to JSON.
//!
//! Invariant: no pixel is decoded here, and no base64: a worker does that, and is charged for it.

use bytes::Bytes;
use serde::Serialize;

use super::{
    extract::Form,
    json::{Breaks, Fields, JsonLimits, strings},
    multipart::{Encoding, Expected, Part, parts},
    scores::{ScoreBody, found},
};
use crate::{
    config::LimitsConfig,
    error::Error,
    image::Rect,
    task::{Area, Face, Input, Ranked},
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
            let input = |Part { content, encoding }| match encoding {
                Encoding::Plain => Input::Image(content),
                Encoding::Base64 => Input::ImageBase64(content),
            };
            Ok(parts(&body, boundary, expected).await?.into_iter().map(input).collect())
        }
        Form::Json => {
            let fields = Fields { one: "image", many: LIST, what: "a base64 string", breaks: Breaks::Kept };
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
    faces: Vec<FaceBody<'a>>,
}

/// One region of an image, and what it shows.
#[derive(Serialize)]
struct FaceBody<'a> {
    r#box: BoxBody,
    /// How sure the detector is of the region; null where there is none.
    confidence: Option<f32>,
    /// Left out where no classifier was asked.
    #[serde(flatten)]
    verdict: Option<VerdictBody<'a>>,
    /// Left eye, right eye, nose, left and right corner of the mouth, where the detector finds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    landmarks: Option<[PointBody; 5]>,
}

/// What a region shows.
#[derive(Serialize)]
struct VerdictBody<'a> {
    label: Option<&'a str>,
    score: Option<f32>,
    /// Every label that was found, where several may be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<&'a str>>,
    scores: Vec<ScoreBody<'a>>,
}

/// A region in pixels of the upright original.
#[derive(Serialize)]
#[serde(untagged)]
enum BoxBody {
    /// In whole pixels.
    Region {
        x: u32,
        y: u32,
        width: u32,
        height: u32,
    },
    Area {
        x: f32,
        y: f32,
        width: f32,
        height: f32,
    },
}

/// A point in pixels of the upright original.
#[derive(Serialize)]
struct PointBody {
    x: f32,
    y: f32,
}

impl<'a> ImageBody<'a> {
    /// An answer about one region, its scores cut to the best `top_k`.
    pub(crate) fn whole((width, height): (u32, u32), region: Rect, scores: &'a Ranked, top_k: usize) -> Self {
        let Rect { x, y, width: box_width, height: box_height } = region;
        let face = FaceBody {
            r#box: BoxBody::Region { x, y, width: box_width, height: box_height },
            confidence: None,
            verdict: Some(VerdictBody::of(Some(scores), top_k)),
            landmarks: None,
        };
        Self { width, height, faces: vec![face] }
    }

    /// What a detector found, and nothing of what the faces show.
    pub(crate) fn found((width, height): (u32, u32), faces: &[Face]) -> Self {
        Self { width, height, faces: faces.iter().map(|face| FaceBody::of(face, None)).collect() }
    }
}

impl<'a> ImageBody<'a> {
    /// What a detector found, and what a classifier said of the first of it, each cut to the best `top_k`.
    pub(super) fn read(
        (width, height): (u32, u32),
        faces: &[Face],
        scores: &[&'a Ranked],
        top_k: usize,
    ) -> Self {
        let scores = scores.iter().copied().map(Some).chain(std::iter::repeat(None));
        let face = |(face, scores): (&Face, Option<&'a Ranked>)| {
            FaceBody::of(face, Some(VerdictBody::of(scores, top_k)))
        };
        Self { width, height, faces: faces.iter().zip(scores).map(face).collect() }
    }
}

impl<'a> FaceBody<'a> {
    fn of(face: &Face, verdict: Option<VerdictBody<'a>>) -> Self {
        let Area { x, y, width, height } = face.area;
        // The far edges are rounded, and not the lengths, so that a box stays within the picture.
        let (left, top) = (hundredths(x), hundredths(y));
        let (width, height) =
            (hundredths(hundredths(x + width) - left), hundredths(hundredths(y + height) - top));
        let point = |[x, y]: [f32; 2]| PointBody { x: hundredths(x), y: hundredths(y) };
        Self {
            r#box: BoxBody::Area { x: left, y: top, width, height },
            confidence: Some(face.confidence),
            verdict,
            landmarks: face.landmarks.map(|marks| marks.map(point)),
        }
    }
}

impl<'a> VerdictBody<'a> {
    /// Scores cut to the best `top_k`; nothing where none were made.
    fn of(scores: Option<&'a Ranked>, top_k: usize) -> Self {
        let best = scores.and_then(|scores| scores.scores.first());
        Self {
            label: best.map(|scored| &*scored.label),
            score: best.map(|scored| scored.score),
            labels: scores.and_then(found),
            scores: scores.map_or_else(Vec::new, |scores| ScoreBody::best(scores, top_k)),
        }
    }
}

/// Hundredths of a pixel are finer than any detector is.
fn hundredths(pixels: f32) -> f32 {
    ((f64::from(pixels) * 100.0).round() / 100.0) as f32
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
        let ranked = Ranked::from(vec![Scored::new("happiness", 0.9), Scored::new("neutral", 0.1)]);
        let region = Rect { x: 0, y: 0, width: 64, height: 48 };
        let image = ImageBody::whole((64, 48), region, &ranked, 1);
        insta::assert_snapshot!(serde_json::to_string(&image).unwrap(), @r#"{"width":64,"height":48,"faces":[{"box":{"x":0,"y":0,"width":64,"height":48},"confidence":null,"label":"happiness","score":0.9,"scores":[{"label":"happiness","score":0.9}]}]}"#);
    }

    #[test]
    fn a_face_that_was_not_classified_has_no_label() {
        let area = Area { x: 1.0, y: 2.0, width: 3.0, height: 4.0 };
        let face = Face { area, confidence: 0.5, landmarks: None, cut: None };
        let ranked = Ranked::from(vec![Scored::new("neutral", 1.0)]);
        let image = ImageBody::read((9, 9), &[face.clone(), face], &[&ranked], 1);
        insta::assert_snapshot!(serde_json::to_string(&image).unwrap(), @r#"{"width":9,"height":9,"faces":[{"box":{"x":1.0,"y":2.0,"width":3.0,"height":4.0},"confidence":0.5,"label":"neutral","score":1.0,"scores":[{"label":"neutral","score":1.0}]},{"box":{"x":1.0,"y":2.0,"width":3.0,"height":4.0},"confidence":0.5,"label":null,"score":null,"scores":[]}]}"#);
    }

    #[test]
    fn what_a_detector_found_has_boxes_and_landmarks_and_no_label() {
        let area = Area { x: 10.004, y: 0.0, width: 53.996, height: 47.123_4 };
        let face = |landmarks| Face { area, confidence: 0.75, landmarks, cut: None };
        let marks = [[1.0, 2.0], [3.0, 4.126], [-0.5, 6.0], [7.0, 8.0], [9.0, 10.0]];
        let faces = [face(Some(marks)), face(None)];
        insta::assert_snapshot!(serde_json::to_string(&ImageBody::found((64, 48), &faces)).unwrap(), @r#"{"width":64,"height":48,"faces":[{"box":{"x":10.0,"y":0.0,"width":54.0,"height":47.12},"confidence":0.75,"landmarks":[{"x":1.0,"y":2.0},{"x":3.0,"y":4.13},{"x":-0.5,"y":6.0},{"x":7.0,"y":8.0},{"x":9.0,"y":10.0}]},{"box":{"x":10.0,"y":0.0,"width":54.0,"height":47.12},"confidence":0.75}]}"#);
        insta::assert_snapshot!(serde_json::to_string(&ImageBody::found((64, 48), &[])).unwrap(), @r#"{"width":64,"height":48,"faces":[]}"#);
    }
}
