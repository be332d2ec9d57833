//! The regions of a picture that a pipeline found, each with what its readers say of it.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    Entry,
    entry::{write_classes, write_output},
};
use crate::{
    error::Error,
    pipelines::{Scene, Stages},
    tasks::{About, Area, Detection, Output, OutputKind},
};

impl<'a> Entry<'a> {
    /// What a pipeline answers about a picture, labels cut to the best `top_k`.
    ///
    /// # Errors
    /// [`Error::Internal`] where the first model found no regions.
    pub(crate) fn of_scene(scene: &'a Scene, stages: &'a Stages, top_k: usize) -> Result<Self, Error> {
        let answer = scene.answer();
        let (Output::Detections(detections), About::Image { width, height }) = (&answer.output, answer.about)
        else {
            return Err(Error::Internal("the first model of a pipeline gave no detections".to_owned()));
        };
        let readings = |idx: usize| {
            let of = |reader: usize| scene.read.get(idx).and_then(|read| read.get(reader));
            let stages = stages.readers.iter().enumerate();
            let reading = stages.map(|(reader, stage)| Reading {
                key: stage.key.as_deref(),
                kind: stage.model.descriptor().map(|task| task.output),
                output: of(reader).map(|read| &read.answer.output),
            });
            reading.collect()
        };
        let regions = detections.iter().enumerate();
        let regions =
            regions.map(|(idx, detection)| Region { detection, readings: readings(idx), top_k }).collect();
        Ok(Self::Regions(Regions { size: (width, height), name: &stages.regions, regions }))
    }
}

/// A picture of a pipeline's answer.
pub(crate) struct Regions<'a> {
    /// Width and height of the upright picture, in pixels.
    pub(crate) size: (u32, u32),
    /// What the regions stand under, such as `faces`.
    pub(crate) name: &'a str,
    pub(crate) regions: Vec<Region<'a>>,
}

impl Regions<'_> {
    pub(super) fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("width", &self.size.0)?;
        map.serialize_entry("height", &self.size.1)?;
        map.serialize_entry(self.name, &self.regions)
    }
}

/// One region.
pub(crate) struct Region<'a> {
    pub(crate) detection: &'a Detection,
    pub(crate) readings: Vec<Reading<'a>>,
    /// The most labels that are listed.
    pub(crate) top_k: usize,
}

/// What one reader says of a region.
pub(crate) struct Reading<'a> {
    /// What it stands under; `None` where its fields are the region's own.
    pub(crate) key: Option<&'a str>,
    /// The shape of the reader's answers.
    pub(crate) kind: Option<OutputKind>,
    /// `None` where the region was not read: there were too many.
    pub(crate) output: Option<&'a Output>,
}

impl Reading<'_> {
    fn write<M: SerializeMap>(&self, map: &mut M, top_k: usize) -> Result<(), M::Error> {
        match (self.output, self.kind) {
            (Some(output), _) => write_output(map, output, top_k),
            // Whoever reads labels finds them null, and not missing.
            (None, Some(OutputKind::Classes)) => write_classes(map, None, top_k),
            (None, _) => Ok(()),
        }
    }
}

impl Serialize for Region<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("box", &BoxBody::of(self.detection.area))?;
        map.serialize_entry("confidence", &self.detection.score)?;
        for reading in &self.readings {
            match reading.key {
                None => reading.write(&mut map, self.top_k)?,
                Some(key) => map.serialize_entry(key, &Nested { reading, top_k: self.top_k })?,
            }
        }
        if !self.detection.landmarks.is_empty() {
            map.serialize_entry("landmarks", &PointBody::all(&self.detection.landmarks))?;
        }
        map.end()
    }
}

/// A reading with fields of its own.
struct Nested<'a> {
    reading: &'a Reading<'a>,
    top_k: usize,
}

impl Serialize for Nested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.reading.write(&mut map, self.top_k)?;
        map.end()
    }
}

/// A part of a picture, in pixels of the upright original.
#[derive(Serialize)]
pub(super) struct BoxBody {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
}

impl BoxBody {
    pub(super) fn of(Area { x, y, width, height }: Area) -> Self {
        // The far edges are rounded, and not the lengths, so that a box stays within the picture.
        let (left, top) = (hundredths(x), hundredths(y));
        let (width, height) =
            (hundredths(hundredths(x + width) - left), hundredths(hundredths(y + height) - top));
        Self { x: left, y: top, width, height }
    }
}

/// A point in pixels of the upright original.
#[derive(Serialize)]
pub(super) struct PointBody {
    x: f32,
    y: f32,
}

impl PointBody {
    pub(super) fn all(points: &[[f32; 2]]) -> Vec<Self> {
        points.iter().map(|[x, y]| Self { x: hundredths(*x), y: hundredths(*y) }).collect()
    }
}

/// Hundredths of a pixel are finer than any detector is.
fn hundredths(pixels: f32) -> f32 {
    ((f64::from(pixels) * 100.0).round() / 100.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::{Ranked, Scored};

    fn detection(landmarks: Vec<[f32; 2]>) -> Detection {
        let area = Area { x: 1.0, y: 2.0, width: 3.0, height: 4.0 };
        Detection { area, label: "face".into(), label_id: 0, score: 0.5, landmarks }
    }

    fn classes(label: &str) -> Output {
        Output::Classes(Ranked::from(vec![Scored::new(label, 1.0)]))
    }

    #[test]
    fn a_region_has_the_fields_of_its_reader_and_nulls_where_it_was_not_read() {
        let (detection, neutral) = (detection(vec![[1.0, 2.0]]), classes("neutral"));
        let region = |output| Region {
            detection: &detection,
            readings: vec![Reading { key: None, kind: Some(OutputKind::Classes), output }],
            top_k: 1,
        };
        let regions =
            Regions { size: (9, 8), name: "faces", regions: vec![region(Some(&neutral)), region(None)] };
        let json = serde_json::to_string(&super::super::Entry::Regions(regions)).unwrap();
        insta::assert_snapshot!(json, @r#"{"width":9,"height":8,"faces":[{"box":{"x":1.0,"y":2.0,"width":3.0,"height":4.0},"confidence":0.5,"label":"neutral","score":1.0,"scores":[{"label":"neutral","score":1.0}],"landmarks":[{"x":1.0,"y":2.0}]},{"box":{"x":1.0,"y":2.0,"width":3.0,"height":4.0},"confidence":0.5,"label":null,"score":null,"scores":[],"landmarks":[{"x":1.0,"y":2.0}]}]}"#);
    }

    #[test]
    fn several_readers_stand_under_their_names() {
        let (detection, calm, vector) = (detection(Vec::new()), classes("calm"), Output::Vector(vec![0.5]));
        let region = Region {
            detection: &detection,
            readings: vec![
                Reading { key: Some("expression"), kind: Some(OutputKind::Classes), output: Some(&calm) },
                Reading { key: Some("identity"), kind: Some(OutputKind::Vector), output: Some(&vector) },
            ],
            top_k: 1,
        };
        insta::assert_snapshot!(serde_json::to_string(&region).unwrap(), @r#"{"box":{"x":1.0,"y":2.0,"width":3.0,"height":4.0},"confidence":0.5,"expression":{"label":"calm","score":1.0,"scores":[{"label":"calm","score":1.0}]},"identity":{"vector":[0.5]}}"#);
    }
}
