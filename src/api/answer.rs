//! A whole answer: which model gave it, and one entry for each item of the request, in its order.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    Entry,
    json_writer::{push_json, push_text},
};
use crate::{error::Error, manifest::Version, tasks::Modality};

/// The body of an answer.
pub(crate) struct AnswerBody<'a> {
    /// The model, or the pipeline, that was asked.
    pub(crate) model: &'a str,
    pub(crate) by: AnsweredBy<'a>,
    /// What the caller sent.
    pub(crate) modality: Modality,
    pub(crate) entries: Vec<Entry<'a>>,
}

/// What answered under the name that was asked.
pub(crate) enum AnsweredBy<'a> {
    /// This version of the model.
    Version(Version),
    /// These models, one after the other.
    Stages(Vec<StageBody<'a>>),
}

/// A model that had a part in an answer.
#[derive(Serialize)]
pub(crate) struct StageBody<'a> {
    model: &'a str,
    version: Version,
}

impl From<Version> for AnsweredBy<'_> {
    fn from(version: Version) -> Self {
        Self::Version(version)
    }
}

impl<'a> AnsweredBy<'a> {
    /// The models of a pipeline, in their order.
    pub(crate) fn stages(models: impl Iterator<Item = (&'a str, Version)>) -> Self {
        Self::Stages(models.map(|(model, version)| StageBody { model, version }).collect())
    }
}

/// Bytes that an answer about one text rarely exceeds.
const SHORT_ANSWER: usize = 512;

impl AnswerBody<'_> {
    /// What the entries stand under.
    fn key(&self) -> &'static str {
        match self.modality {
            Modality::Image => "images",
            Modality::Text | Modality::Pair | Modality::Tensors => "results",
        }
    }

    /// Writes the answer as JSON.
    ///
    /// # Errors
    /// [`Error::Internal`] where a value cannot be written.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, Error> {
        // Labels of texts are the small answers, of which writing is a part that counts.
        let is_of_labels = |entry: &Entry<'_>| entry.labels_of_a_text().is_some();
        match self.by {
            AnsweredBy::Version(version) if self.entries.iter().all(is_of_labels) => {
                Ok(self.json_of_texts(version))
            }
            _ => self.serialized(),
        }
    }

    fn json_of_texts(&self, version: Version) -> Vec<u8> {
        let mut json = Vec::with_capacity(SHORT_ANSWER);
        json.extend_from_slice(b"{\"model\":");
        push_text(&mut json, self.model);
        json.extend_from_slice(b",\"version\":");
        push_json(&mut json, &version);
        json.extend_from_slice(b",\"results\":[");
        for (idx, text) in self.entries.iter().filter_map(Entry::labels_of_a_text).enumerate() {
            if idx > 0 {
                json.push(b',');
            }
            text.push(&mut json);
        }
        json.extend_from_slice(b"]}");
        json
    }

    fn serialized(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(|error| Error::Internal(format!("cannot write the answer: {error}")))
    }
}

impl Serialize for AnswerBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", self.model)?;
        match &self.by {
            AnsweredBy::Version(version) => map.serialize_entry("version", version)?,
            AnsweredBy::Stages(stages) => map.serialize_entry("stages", stages)?,
        }
        map.serialize_entry(self.key(), &self.entries)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::{About, Answer, Output, Ranked, Scored, Supported, Truncated};

    #[test]
    fn answers_about_texts_are_written_as_they_serialise() {
        let some = vec![Scored::new("\"good\"\n", 0.1), Scored::new("é", 1e-12), Scored::new("", f32::NAN)];
        let numbered = some.iter().cloned().map(|scored| Scored { index: Some(7), ..scored }).collect();
        let mut answers = Vec::new();
        for (ranked, truncated) in [
            (Ranked::from(some), Truncated::Yes),
            (Ranked { scores: numbered, found: Some(2) }, Truncated::Yes),
            (Ranked::default(), Truncated::No),
        ] {
            answers.extend([Supported::Unsaid, Supported::Yes, Supported::No].map(|supported| Answer {
                output: Output::Classes(ranked.clone()),
                about: About::Text { tokens: 7, truncated, supported },
            }));
        }
        for answers in answers.chunks(1).chain([&answers[..]]) {
            for top_k in [1, usize::MAX] {
                let entries = answers.iter().map(|answer| Entry::new(answer, top_k)).collect();
                let body =
                    AnswerBody { model: "mood", by: Version(2).into(), modality: Modality::Text, entries };
                let written = String::from_utf8(body.to_json().unwrap()).unwrap();
                assert_eq!(written, String::from_utf8(body.serialized().unwrap()).unwrap());
            }
        }
    }
}
