//! What a manifest says of pictures: plain data.

use serde::{Deserialize, Serialize};

/// How the samples of a picture, 0 to 255, become the numbers of a row: `(sample * scale - mean) / std`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Normalisation<'a> {
    /// The channels of the row.
    pub(super) color: Color,
    /// Factor of each sample.
    pub(super) scale: f32,
    /// One value, or one per channel.
    pub(super) mean: &'a [f32],
    /// One value, or one per channel.
    pub(super) std: &'a [f32],
}

/// How a picture becomes the network's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageInputSpec {
    /// The input's name in the network.
    pub name: String,
    /// Width of the input, in pixels.
    pub width: u32,
    /// Height of the input, in pixels.
    pub height: u32,
    /// The channels that it takes.
    pub color: Color,
    /// Where the channels stand.
    #[serde(default)]
    pub layout: Layout,
    /// How a picture of another aspect ratio fills it.
    #[serde(default)]
    pub fit: Fit,
    /// How samples are interpolated.
    #[serde(default)]
    pub filter: Filter,
    /// How closely Pillow's arithmetic is followed.
    #[serde(default)]
    pub resampling: Resampling,
    /// A sample becomes `(sample * scale - mean) / std`, samples being 0 to 255.
    #[serde(default = "one_255th")]
    pub scale: f32,
    /// One value, or one per channel.
    pub mean: Vec<f32>,
    /// One value, or one per channel.
    pub std: Vec<f32>,
}

/// How a picture of any size becomes the network's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneInputSpec {
    /// The input's name in the network.
    pub name: String,
    /// The channels that it takes.
    pub color: Color,
    /// How samples are interpolated.
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

/// The channels a network takes, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Color {
    /// One channel of ITU-R BT.601 luma.
    Gray,
    Rgb,
    Bgr,
}

/// Where the channels stand in the network's input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// `[batch, channels, height, width]`.
    #[default]
    Nchw,
    /// `[batch, height, width, channels]`.
    Nhwc,
}

/// How a region of another aspect ratio fills the network's input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Cut the longer side, centred.
    #[default]
    Cover,
    /// Pad the shorter side, centred, with black.
    Contain,
    /// Ignore the aspect ratio.
    Stretch,
    /// Scale so that the shorter side has this many pixels, then cut the middle out, padded with black where
    /// there is less.
    ShortestSide(u32),
    /// Scale to this size, whatever the aspect ratio, then cut the middle out.
    StretchTo { width: u32, height: u32 },
    /// Cut the middle out of the picture as it is, padded with black where there is less.
    Unscaled,
}

/// How samples are interpolated. All but `nearest` are antialiased when they shrink, as Pillow's are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    Nearest,
    Box,
    #[default]
    Bilinear,
    Hamming,
    /// Keys (1981) with a = -1/2.
    Bicubic,
    /// With three lobes.
    Lanczos,
}

/// How closely a filter is computed as Pillow computes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resampling {
    /// To within one of 256 levels.
    #[default]
    Fast,
    /// To the bit, with its order of passes and its weights; slower for large pictures.
    Exact,
}

fn one_255th() -> f32 {
    1.0 / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(fit: &str) -> Result<ImageInputSpec, String> {
        let text = format!(
            "name = 'x'\nwidth = 224\nheight = 224\ncolor = 'rgb'\nmean = [0.5]\nstd = [0.5]\n{fit}\n"
        );
        toml::from_str(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_manifest_says_how_a_picture_fills_the_input() {
        for (text, fit) in [
            ("", Fit::Cover),
            ("fit = 'stretch'", Fit::Stretch),
            ("fit = 'unscaled'", Fit::Unscaled),
            ("fit = { shortest-side = 256 }", Fit::ShortestSide(256)),
            (
                "fit = { stretch-to = { width = 256, height = 240 } }",
                Fit::StretchTo { width: 256, height: 240 },
            ),
        ] {
            assert_eq!(input(text).unwrap().fit, fit, "{text}");
        }
        let error = input("fit = { shorter-side = 256 }").unwrap_err();
        assert!(error.contains("shortest-side") && error.contains("stretch-to"), "{error}");
        assert_eq!(input("layout = 'nhwc'\nfilter = 'lanczos'").unwrap().layout, Layout::Nhwc);
    }
}
