//! What a folder says of a network that finds faces. Plain data; `task` holds it to the network.

use serde::{Deserialize, Serialize};

use super::{Color, Filter, Labels, one, one_255th};

/// An image in, the faces that it shows out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaceDetectionSpec {
    /// The one thing that is found.
    #[serde(default)]
    pub labels: Labels,
    /// Logits are divided by this before the sigmoid.
    #[serde(default = "one")]
    pub temperature: f32,
    /// Faces that are less sure are not answered. One value, or one per side: small pictures of faces are
    /// seen less surely.
    #[serde(default = "half")]
    pub thresholds: Vec<f32>,
    /// Intersection over union above which the less sure of two faces is dropped.
    #[serde(default = "most_overlap")]
    pub overlap: f32,
    /// Long sides that a picture may be scaled to, in pixels; the first is used where the caller does not
    /// choose.
    pub sides: Vec<u32>,
    pub input: SceneInputSpec,
    /// The grids of cells that the network gives, one for each stride.
    pub outputs: Vec<GridSpec>,
}

/// How a picture of any size becomes the network's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneInputSpec {
    /// The input's name in the network.
    pub name: String,
    pub color: Color,
    #[serde(default)]
    pub filter: Filter,
    /// A sample becomes `(sample * scale - mean) / std`, samples being 0 to 255.
    #[serde(default = "one_255th")]
    pub scale: f32,
    /// One value, or one per channel.
    pub mean: Vec<f32>,
    /// One value, or one per channel.
    pub std: Vec<f32>,
}

/// An output that says of each cell of a grid whether a face is centred in it, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridSpec {
    /// The output's name in the network.
    pub name: String,
    /// Pixels of the input that a cell is wide and high.
    pub stride: u32,
}

fn half() -> Vec<f32> {
    vec![0.5]
}

fn most_overlap() -> f32 {
    0.45
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Manifest, TaskSpec},
        *,
    };

    const DETECTOR: &str = "
        [task.face-detection]
        sides = [320, 640]
        [task.face-detection.input]
        name = 'image'
        color = 'rgb'
        mean = [0.5]
        std = [0.25]
        [[task.face-detection.outputs]]
        name = 'stride_8'
        stride = 8
        [[task.face-detection.outputs]]
        name = 'stride_16'
        stride = 16
    ";

    #[test]
    fn a_detector_is_read_and_what_is_left_out_has_its_default() {
        let manifest = Manifest::parse(DETECTOR).unwrap();
        let TaskSpec::FaceDetection(spec) = &manifest.task else { panic!("{manifest:?}") };
        assert_eq!(
            (spec.temperature, spec.thresholds.as_slice(), spec.overlap),
            (1.0, [0.5].as_slice(), 0.45)
        );
        assert_eq!((spec.sides.as_slice(), spec.input.filter), ([320, 640].as_slice(), Filter::Bilinear));
        let grids: Vec<(&str, u32)> =
            spec.outputs.iter().map(|grid| (grid.name.as_str(), grid.stride)).collect();
        assert_eq!(grids, [("stride_8", 8), ("stride_16", 16)]);
        assert_eq!(manifest.task.files(), [std::path::Path::new("labels.txt")]);
    }

    #[test]
    fn a_key_that_no_detector_has_is_refused_with_those_that_it_has() {
        for (key, typo, allowed) in [
            ("sides = [320, 640]", "size = 320", "`sides`"),
            ("color = 'rgb'", "width = 320", "`color`"),
            ("stride = 16", "step = 16", "`stride`"),
        ] {
            let error = Manifest::parse(&DETECTOR.replace(key, typo)).unwrap_err();
            assert!(error.contains("unknown field") && error.contains(allowed), "{error}");
        }
    }
}
