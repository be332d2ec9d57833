//! What `GET /v1/models` tells of a pipeline.

use serde::Serialize;

use crate::pipelines::{Pipeline, ReaderSpec};

/// A detector and its readers.
#[derive(Serialize)]
pub(super) struct PipelineBody<'a> {
    name: &'a str,
    description: &'a str,
    detector: &'a str,
    regions: &'a str,
    readers: Vec<ReaderBody<'a>>,
}

#[derive(Serialize)]
struct ReaderBody<'a> {
    model: &'a str,
    margin: f32,
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

impl<'a> PipelineBody<'a> {
    pub(super) fn of(Pipeline { name, spec }: &'a Pipeline) -> Self {
        let reader = |reader: &'a ReaderSpec| ReaderBody {
            model: reader.model.as_str(),
            margin: reader.margin,
            key: reader.key.as_deref(),
        };
        Self {
            name: name.as_str(),
            description: &spec.description,
            detector: spec.detector.as_str(),
            regions: &spec.regions,
            readers: spec.readers.iter().map(reader).collect(),
        }
    }
}
