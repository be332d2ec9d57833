//! One item of an answer: a writer for each shape of output.

use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeMap},
};

use super::{
    json_writer::{push_json, push_number},
    region::{BoxBody, PointBody, Regions},
    scores::{ScoreBody, found},
};
use crate::{
    tasks::{About, Answer, Detection, Output, Ranked, Span, Supported, Truncated},
    tensor::{DType, Element, Tensor, bf16, f16},
};

/// What is answered about one item.
pub(crate) enum Entry<'a> {
    /// By one model; `top_k` is the most labels that are listed.
    Answer { answer: &'a Answer, top_k: usize },
    /// By a pipeline: the regions of a picture, each with what its readers say of it.
    Regions(Regions<'a>),
}

impl<'a> Entry<'a> {
    /// The answer of one model, its labels cut to the best `top_k`.
    pub(crate) fn new(answer: &'a Answer, top_k: usize) -> Self {
        Self::Answer { answer, top_k }
    }

    /// The labels of a text, where that is what the entry holds.
    pub(super) fn labels_of_a_text(&self) -> Option<TextLabels<'a>> {
        match self {
            Self::Answer {
                answer:
                    Answer {
                        output: Output::Classes(ranked),
                        about: About::Text { tokens, truncated, supported },
                    },
                top_k,
            } => Some(TextLabels {
                ranked,
                top_k: *top_k,
                tokens: *tokens,
                truncated: *truncated,
                supported: *supported,
            }),
            _ => None,
        }
    }
}

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Answer { answer: Answer { output, about }, top_k } => {
                if let About::Image { width, height } = about {
                    map.serialize_entry("width", width)?;
                    map.serialize_entry("height", height)?;
                }
                write_output(&mut map, output, *top_k)?;
                if let About::Text { tokens, truncated, supported } = about {
                    map.serialize_entry("tokens", tokens)?;
                    map.serialize_entry("truncated", &(*truncated == Truncated::Yes))?;
                    if let Some(supported) = supported.told() {
                        map.serialize_entry("supported", &supported)?;
                    }
                }
            }
            Self::Regions(regions) => regions.write(&mut map)?,
        }
        map.end()
    }
}

/// Writes the fields of an output.
pub(super) fn write_output<M: SerializeMap>(
    map: &mut M,
    output: &Output,
    top_k: usize,
) -> Result<(), M::Error> {
    match output {
        Output::Classes(ranked) => write_classes(map, Some(ranked), top_k),
        Output::Detections(detections) => {
            let bodies: Vec<DetectionBody<'_>> = detections.iter().map(DetectionBody::of).collect();
            map.serialize_entry("detections", &bodies)
        }
        Output::Spans(spans) => {
            let bodies: Vec<SpanBody<'_>> = spans.iter().map(SpanBody::of).collect();
            map.serialize_entry("spans", &bodies)
        }
        Output::Vector(vector) => map.serialize_entry("vector", vector),
        Output::Score(score) => map.serialize_entry("score", score),
        Output::Tensors(tensors) => {
            let bodies = tensors.iter().map(|(name, tensor)| TensorBody { name, tensor });
            map.serialize_entry("outputs", &bodies.collect::<Vec<_>>())
        }
    }
}

/// Writes ranked labels, the best first; nulls where nothing was read.
pub(super) fn write_classes<M: SerializeMap>(
    map: &mut M,
    ranked: Option<&Ranked>,
    top_k: usize,
) -> Result<(), M::Error> {
    let best = ranked.and_then(|ranked| ranked.scores.first());
    map.serialize_entry("label", &best.map(|scored| &*scored.label))?;
    map.serialize_entry("score", &best.map(|scored| scored.score))?;
    if let Some(labels) = ranked.and_then(found) {
        map.serialize_entry("labels", &labels)?;
    }
    map.serialize_entry("scores", &ranked.map_or_else(Vec::new, |ranked| ScoreBody::best(ranked, top_k)))
}

/// The labels of a text: the answer that is written most.
pub(super) struct TextLabels<'a> {
    ranked: &'a Ranked,
    top_k: usize,
    tokens: usize,
    truncated: Truncated,
    supported: Supported,
}

impl TextLabels<'_> {
    /// Appends it as JSON, as the entry serialises.
    pub(super) fn push(&self, json: &mut Vec<u8>) {
        let best = self.ranked.scores.first();
        json.extend_from_slice(b"{\"label\":");
        push_json(json, &best.map(|scored| &*scored.label));
        json.extend_from_slice(b",\"score\":");
        push_json(json, &best.map(|scored| scored.score));
        if let Some(labels) = found(self.ranked) {
            json.extend_from_slice(b",\"labels\":");
            push_json(json, &labels);
        }
        json.extend_from_slice(b",\"scores\":[");
        for (idx, score) in ScoreBody::best(self.ranked, self.top_k).iter().enumerate() {
            if idx > 0 {
                json.push(b',');
            }
            score.push(json);
        }
        json.extend_from_slice(b"],\"tokens\":");
        push_number(json, self.tokens as u64);
        json.extend_from_slice(b",\"truncated\":");
        push_json(json, &(self.truncated == Truncated::Yes));
        if let Some(supported) = self.supported.told() {
            json.extend_from_slice(b",\"supported\":");
            push_json(json, &supported);
        }
        json.push(b'}');
    }
}

/// A thing in a picture.
#[derive(Serialize)]
struct DetectionBody<'a> {
    r#box: BoxBody,
    label: &'a str,
    label_id: u32,
    score: f32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    landmarks: Vec<PointBody>,
}

impl<'a> DetectionBody<'a> {
    fn of(detection: &'a Detection) -> Self {
        Self {
            r#box: BoxBody::of(detection.area),
            label: &detection.label,
            label_id: detection.label_id,
            score: detection.score,
            landmarks: PointBody::all(&detection.landmarks),
        }
    }
}

/// A part of a text.
#[derive(Serialize)]
struct SpanBody<'a> {
    start: usize,
    end: usize,
    label: &'a str,
    score: f32,
}

impl<'a> SpanBody<'a> {
    fn of(span: &'a Span) -> Self {
        Self { start: span.start, end: span.end, label: &span.label, score: span.score }
    }
}

/// A tensor, its numbers in row-major order.
struct TensorBody<'a> {
    name: &'a str,
    tensor: &'a Tensor,
}

impl Serialize for TensorBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("name", self.name)?;
        map.serialize_entry("datatype", &self.tensor.dtype().to_string())?;
        map.serialize_entry("shape", self.tensor.shape())?;
        let data = Elements { name: self.name, tensor: self.tensor };
        map.serialize_entry("data", &data)?;
        map.end()
    }
}

/// The elements of a tensor in a row.
struct Elements<'a> {
    name: &'a str,
    tensor: &'a Tensor,
}

impl Elements<'_> {
    fn whole<T: Element + Serialize, S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.tensor.as_slice::<T>().map_err(S::Error::custom)?.serialize(serializer)
    }

    /// Writes numbers as `shown`; JSON has none that are not finite.
    fn real<T, N, S>(&self, serializer: S, shown: impl Fn(&T) -> N) -> Result<S::Ok, S::Error>
    where
        T: Element + Into<f64>,
        N: Serialize,
        S: Serializer,
    {
        let numbers = self.tensor.as_slice::<T>().map_err(S::Error::custom)?;
        if numbers.iter().any(|number| !(*number).into().is_finite()) {
            let text = format!("the output `{}` holds numbers that JSON has none for", self.name);
            return Err(S::Error::custom(text));
        }
        serializer.collect_seq(numbers.iter().map(shown))
    }

    fn texts<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let texts: Result<Vec<&str>, _> =
            self.tensor.strings().map_err(S::Error::custom)?.map(std::str::from_utf8).collect();
        let not_text =
            |_| S::Error::custom(format!("the output `{}` holds bytes that are no text", self.name));
        texts.map_err(not_text)?.serialize(serializer)
    }
}

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.tensor.dtype() {
            DType::Bool => self.whole::<bool, S>(serializer),
            DType::U8 => self.whole::<u8, S>(serializer),
            DType::U16 => self.whole::<u16, S>(serializer),
            DType::U32 => self.whole::<u32, S>(serializer),
            DType::U64 => self.whole::<u64, S>(serializer),
            DType::I8 => self.whole::<i8, S>(serializer),
            DType::I16 => self.whole::<i16, S>(serializer),
            DType::I32 => self.whole::<i32, S>(serializer),
            DType::I64 => self.whole::<i64, S>(serializer),
            DType::F16 => self.real(serializer, |number: &f16| number.to_f32()),
            DType::Bf16 => self.real(serializer, |number: &bf16| number.to_f32()),
            DType::F32 => self.real(serializer, |number: &f32| *number),
            DType::F64 => self.real(serializer, |number: &f64| *number),
            DType::Bytes => self.texts(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::{Area, Scored};

    fn json(output: Output, about: About, top_k: usize) -> String {
        serde_json::to_string(&Entry::new(&Answer { output, about }, top_k)).unwrap()
    }

    const PICTURE: About = About::Image { width: 64, height: 48 };

    #[test]
    fn a_classified_picture_has_its_size_and_ranked_labels_and_no_faces() {
        let ranked = Ranked::from(vec![Scored::new("happiness", 0.9), Scored::new("neutral", 0.1)]);
        insta::assert_snapshot!(json(Output::Classes(ranked), PICTURE, 1), @r#"{"width":64,"height":48,"label":"happiness","score":0.9,"scores":[{"label":"happiness","score":0.9}]}"#);
    }

    #[test]
    fn detections_have_boxes_labels_and_scores() {
        let area = Area { x: 10.004, y: 0.0, width: 53.996, height: 47.123_4 };
        let detection =
            |landmarks| Detection { area, label: "face".into(), label_id: 0, score: 0.75, landmarks };
        let found = vec![detection(vec![[1.0, 2.0], [3.0, 4.126]]), detection(Vec::new())];
        insta::assert_snapshot!(json(Output::Detections(found), PICTURE, 1), @r#"{"width":64,"height":48,"detections":[{"box":{"x":10.0,"y":0.0,"width":54.0,"height":47.12},"label":"face","label_id":0,"score":0.75,"landmarks":[{"x":1.0,"y":2.0},{"x":3.0,"y":4.13}]},{"box":{"x":10.0,"y":0.0,"width":54.0,"height":47.12},"label":"face","label_id":0,"score":0.75}]}"#);
        insta::assert_snapshot!(json(Output::Detections(Vec::new()), PICTURE, 1), @r#"{"width":64,"height":48,"detections":[]}"#);
    }

    #[test]
    fn a_text_has_its_labels_those_that_were_found_and_its_tokens() {
        let about = About::Text { tokens: 12, truncated: Truncated::No, supported: Supported::Unsaid };
        let ranked = Ranked::from(vec![Scored::new("positive", 0.75), Scored::new("negative", 0.25)]);
        insta::assert_snapshot!(json(Output::Classes(ranked), about, 9), @r#"{"label":"positive","score":0.75,"scores":[{"label":"positive","score":0.75},{"label":"negative","score":0.25}],"tokens":12,"truncated":false}"#);
        let scored = |index, score| Scored { index: Some(index), ..Scored::new("crane", score) };
        let ranked = Ranked { scores: vec![scored(517, 0.75), scored(134, 0.25)], found: Some(1) };
        insta::assert_snapshot!(json(Output::Classes(ranked), about, 9), @r#"{"label":"crane","score":0.75,"labels":["crane"],"scores":[{"label":"crane","index":517,"score":0.75},{"label":"crane","index":134,"score":0.25}],"tokens":12,"truncated":false}"#);
    }

    #[test]
    fn every_other_shape_of_output_has_its_fields() {
        let text = About::Text { tokens: 4, truncated: Truncated::No, supported: Supported::Unsaid };
        let span = Span { start: 0, end: 5, label: "PER".into(), score: 0.5 };
        insta::assert_snapshot!(json(Output::Spans(vec![span]), text, 1), @r#"{"spans":[{"start":0,"end":5,"label":"PER","score":0.5}],"tokens":4,"truncated":false}"#);
        insta::assert_snapshot!(json(Output::Vector(vec![0.5, -1.0]), text, 1), @r#"{"vector":[0.5,-1.0],"tokens":4,"truncated":false}"#);
        insta::assert_snapshot!(json(Output::Score(0.25), text, 1), @r#"{"score":0.25,"tokens":4,"truncated":false}"#);
        let tensor =
            |values: Vec<f32>| vec![("out".to_owned(), Tensor::new::<f32>(vec![1, 2], values).unwrap())];
        insta::assert_snapshot!(json(Output::Tensors(tensor(vec![1.0, 2.5])), About::Tensors, 1), @r#"{"outputs":[{"name":"out","datatype":"f32","shape":[1,2],"data":[1.0,2.5]}]}"#);
        let answer = Answer { output: Output::Tensors(tensor(vec![1.0, f32::NAN])), about: About::Tensors };
        assert!(serde_json::to_string(&Entry::new(&answer, 1)).unwrap_err().to_string().contains("`out`"));
    }
}
