//! `preprocessor_config.json` into the way from a picture to the network's input.
//!
//! Invariant: a key that changes the answer is done as its class does it, or refused by its name. Keys that change
//! nothing are listed; any other is refused, too.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    PREPROCESSOR,
    classes::{self, Channels, Class, Crop, Extra, Number, Scaling, Variant},
    labels::Config,
    sizes::{Numbers, Scaled, Size},
};
use crate::{
    engine::{Dim, Port},
    manifest::{Color, Filter, Fit, ImageInputSpec, Layout, Resampling},
    tensor::DType,
};

/// Keys that say nothing about what becomes of a picture: who wrote the file and for whom, in which form pictures
/// come in and tensors go out, and what is done to the labels of segmentations.
const IDLE: [&str; 18] = [
    "_commit_hash",
    "_name_or_path",
    "_processor_class",
    "_valid_processor_keys",
    "default_to_square",
    "device",
    "disable_grouping",
    "do_convert_rgb",
    "do_reduce_labels",
    "feature_extractor_type",
    "image_processor_type",
    "input_data_format",
    "model_input_names",
    "name_or_path",
    "processor_class",
    "reduce_labels",
    "return_tensors",
    "transformers_version",
];

/// The keys that are understood, as they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Preprocessor {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<Size>,
    crop_pct: Option<f64>,
    resample: Option<u32>,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    rescale_offset: Option<bool>,
    do_normalize: Option<bool>,
    image_mean: Option<Numbers>,
    image_std: Option<Numbers>,
    include_top: Option<bool>,
    do_flip_channel_order: Option<bool>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// How a picture gets its size.
struct Geometry {
    width: u32,
    height: u32,
    fit: Fit,
}

impl Preprocessor {
    /// Turns the keys into the input `port` of a network, which `config` describes.
    pub(super) fn input(&self, config: &Config, port: &Port) -> Result<ImageInputSpec, String> {
        self.spec(config, port).map_err(|reason| format!("{PREPROCESSOR}: {reason}"))
    }

    fn spec(&self, config: &Config, port: &Port) -> Result<ImageInputSpec, String> {
        let (class, variant) = self.class(config)?;
        self.refuse_others()?;
        let layout = layout(port);
        let n_channels = match (layout, port.shape.as_slice()) {
            (Layout::Nchw, [_, Dim::Fixed(n), ..]) | (Layout::Nhwc, [.., Dim::Fixed(n)]) => *n,
            _ => 3,
        };
        let Geometry { width, height, fit } = self.geometry(&class, variant)?;
        let at = match layout {
            Layout::Nchw => 2,
            Layout::Nhwc => 1,
        };
        for (side, axis) in [(height, at), (width, at + 1)] {
            if matches!(port.shape.get(axis), Some(Dim::Fixed(n)) if *n != side as usize) {
                let (name, found) = (&port.name, port.describe());
                return Err(format!(
                    "size and crop_size make pictures of {width} x {height}, but the network's input `{name}` is {found}"
                ));
            }
        }
        let [scale, mean, std] = self.numbers(&class, variant)?;
        let channels = |values: Vec<f64>, key: &str| match values.len() {
            1 => Ok(values.iter().map(|value| *value as f32).collect::<Vec<f32>>()),
            n if n == n_channels => Ok(values.iter().map(|value| *value as f32).collect()),
            n => Err(format!("{key} has {n} numbers, but the network's input has {n_channels} channels")),
        };
        let (mean, std) = (channels(mean, "image_mean")?, channels(std, "image_std")?);
        let scale = scale.first().copied().unwrap_or(1.0) as f32;
        if port.dtype == DType::U8
            && (scale != 1.0 || mean.iter().any(|m| *m != 0.0) || std.iter().any(|s| *s != 1.0))
        {
            let name = &port.name;
            return Err(format!(
                "the network's input `{name}` takes u8, levels as they are; expected do_rescale and do_normalize false"
            ));
        }
        let color = match n_channels {
            1 => Color::Gray,
            _ => self.color(&class)?,
        };
        let filter = self.filter(&class)?;
        Ok(ImageInputSpec {
            name: port.name.clone(),
            width,
            height,
            color,
            layout,
            fit,
            filter,
            resampling: Resampling::Exact,
            scale,
            mean,
            std,
        })
    }

    fn class(&self, config: &Config) -> Result<(Class, Variant), String> {
        let written =
            [&self.image_processor_type, &self.feature_extractor_type, &config.image_processor_type];
        match written.into_iter().flatten().next() {
            Some(name) => classes::named(name),
            None => Ok((classes::of_model_type(config.model_type.as_deref()), Variant::Slow)),
        }
    }

    /// Refuses keys that nobody listed, unless they say nothing.
    fn refuse_others(&self) -> Result<(), String> {
        let speaks = |(key, value): &(&String, &Value)| match (key.as_str(), value) {
            (_, Value::Null) => false,
            ("data_format", Value::String(format)) => format != "channels_first",
            (key, Value::Bool(false)) => !key.starts_with("do_"),
            (key, _) => !IDLE.contains(&key),
        };
        match self.others.iter().find(speaks) {
            Some((key, value)) => Err(format!(
                "the key {key:?} ({value}) is not served, and it may change the answer; a model.toml can describe the network"
            )),
            None => Ok(()),
        }
    }

    /// What a picture is scaled to, and what is cut out of it.
    fn geometry(&self, class: &Class, variant: Variant) -> Result<Geometry, String> {
        let name = class.name;
        if self.crop_pct.is_some() && matches!(class.scaling, Scaling::Plain | Scaling::Levit) {
            return Err(format!("crop_pct is not read by the image processor of {name}; it may be removed"));
        }
        let scaled = match self.do_resize {
            Some(false) => Scaled::Unscaled,
            _ => self.scaled(class)?,
        };
        if let (Scaling::ConvNext(usual), false) = (class.scaling, scaled == Scaled::Unscaled) {
            return self.like_convnext(scaled, usual);
        }
        let scaled = match class.scaling {
            Scaling::Plain | Scaling::ConvNext(_) => scaled,
            Scaling::Levit => match scaled {
                Scaled::Shortest(side) => Scaled::Shortest((256.0 / 224.0 * f64::from(side)) as u32),
                other => other,
            },
            Scaling::PoolFormer(usual) => {
                let share = self.share(usual)?;
                let larger = |side: u32| (f64::from(side) / share) as u32;
                match scaled {
                    Scaled::Shortest(side) => Scaled::Shortest(larger(side)),
                    Scaled::To { width, height } if width == height => Scaled::Shortest(larger(width)),
                    Scaled::To { width, height } => {
                        Scaled::To { width: larger(width), height: larger(height) }
                    }
                    Scaled::Unscaled => Scaled::Unscaled,
                }
            }
        };
        let cut = self.cut(class, variant, scaled)?;
        match (scaled, cut) {
            (Scaled::To { width, height }, None) => Ok(Geometry { width, height, fit: Fit::Stretch }),
            (Scaled::To { width, height }, Some((w, h))) if (width, height) == (w, h) => {
                Ok(Geometry { width, height, fit: Fit::Stretch })
            }
            (Scaled::To { width: to_width, height: to_height }, Some((width, height))) => {
                Ok(Geometry { width, height, fit: Fit::StretchTo { width: to_width, height: to_height } })
            }
            (Scaled::Shortest(side), Some((width, height))) => {
                Ok(Geometry { width, height, fit: Fit::ShortestSide(side) })
            }
            (Scaled::Unscaled, Some((width, height))) => Ok(Geometry { width, height, fit: Fit::Unscaled }),
            (Scaled::Shortest(side), None) => Err(format!(
                "a shortest_edge of {side} without do_center_crop makes inputs of any size, which are not served; \
                 expected do_center_crop, or height and width"
            )),
            (Scaled::Unscaled, None) => Err(
                "do_resize is false and nothing is cut, so that inputs have any size, which are not served; expected \
                 do_resize or do_center_crop"
                    .to_owned(),
            ),
        }
    }

    /// ConvNeXT: `size` over `crop_pct`, and a cut of `size`; large sizes are stretched to.
    fn like_convnext(&self, scaled: Scaled, usual: f64) -> Result<Geometry, String> {
        /// From here on its processor stretches.
        const STRETCHED: u32 = 384;
        let Scaled::Shortest(side) = scaled else {
            return Err("size has height and width; this image processor expects shortest_edge".to_owned());
        };
        if self.do_center_crop == Some(true) {
            return Err(
                "do_center_crop is not read by this image processor, which cuts by crop_pct".to_owned()
            );
        }
        let fit = match side < STRETCHED {
            true => Fit::ShortestSide((f64::from(side) / self.share(usual)?) as u32),
            false => Fit::Stretch,
        };
        Ok(Geometry { width: side, height: side, fit })
    }

    fn share(&self, usual: f64) -> Result<f64, String> {
        let share = self.crop_pct.unwrap_or(usual);
        match share > 0.0 && share <= 1.0 {
            true => Ok(share),
            false => Err(format!("crop_pct is {share}; allowed is more than 0, up to 1")),
        }
    }

    /// The size that `size` says, or else the class.
    fn scaled(&self, class: &Class) -> Result<Scaled, String> {
        let of_number = |side: u32| match class.number {
            Number::Square => Ok(Scaled::To { width: side, height: side }),
            Number::Shortest => Ok(Scaled::Shortest(side)),
            Number::Unclear => Err(format!(
                "size is {side}, and no image_processor_type says which side that is; expected height and width, or \
                 shortest_edge"
            )),
        };
        match (self.size, class.size) {
            (Some(Size::Number(side)), _) | (None, Some(side)) => of_number(side),
            (Some(Size::Pair([height, width])), _) => Ok(Scaled::To { width, height }),
            (Some(Size::Named(sides)), _) => sides.scaled("size"),
            (None, None) => Err("it names no size".to_owned()),
        }
    }

    /// Width and height of what is cut out, if something is.
    fn cut(&self, class: &Class, variant: Variant, scaled: Scaled) -> Result<Option<(u32, u32)>, String> {
        let (cuts, usual) = match (class.crop, variant) {
            // The faster twins of such classes cut where they are told to.
            (Crop::Unknown, Variant::Fast) => (self.do_center_crop.unwrap_or(false), None),
            (Crop::Unknown, Variant::Slow) => {
                let square = |side| (side, side);
                let cut = self.crop_size.map(|size| size.exactly("crop_size", square)).transpose()?;
                let whole = matches!((scaled, cut), (Scaled::To { width, height }, Some(cut)) if cut == (width, height));
                if self.do_center_crop == Some(true) && !whole {
                    return Err(format!(
                        "do_center_crop is not read by the image processor of {}; it may be removed",
                        class.name
                    ));
                }
                (false, None)
            }
            (Crop::On(side), _) => (self.do_center_crop.unwrap_or(true), Some(side)),
            (Crop::Off(side), _) => {
                (self.do_center_crop.unwrap_or(false), Some(side).filter(|side| *side > 0))
            }
        };
        if !cuts {
            return Ok(None);
        }
        let square = |side| (side, side);
        match (self.crop_size, usual) {
            (Some(size), _) => size.exactly("crop_size", square).map(Some),
            (None, Some(side)) => Ok(Some(square(side))),
            (None, None) => Err("do_center_crop is true, but there is no crop_size".to_owned()),
        }
    }

    /// Scale, mean and deviation of `(level * scale - mean) / deviation`.
    fn numbers(&self, class: &Class, variant: Variant) -> Result<[Vec<f64>; 3], String> {
        let is_efficientnet = class.extra == Extra::EfficientNet;
        let rescales = self.do_rescale.unwrap_or(true);
        let scale = if rescales { self.rescale_factor.unwrap_or(1.0 / 255.0) } else { 1.0 };
        if self.rescale_offset == Some(true) && !is_efficientnet {
            return Err(format!("rescale_offset is not read by the image processor of {}", class.name));
        }
        if self.include_top == Some(true) && !is_efficientnet {
            return Err(format!("include_top is not read by the image processor of {}", class.name));
        }
        let offset = if rescales && self.rescale_offset == Some(true) { 1.0 } else { 0.0 };
        let never = class.channels == Channels::Flipped && variant == Variant::Slow;
        if never && self.do_normalize == Some(true) {
            return Err(format!("do_normalize is not read by the image processor of {}", class.name));
        }
        let [usual_mean, usual_std] = match class.normal {
            Some(normal) => normal.map(|values| Some(values.map(f64::from).to_vec())),
            None => [None, None],
        };
        let mean = self.image_mean.as_ref().map(Numbers::list).or(usual_mean);
        let std = self.image_std.as_ref().map(Numbers::list).or(usual_std);
        let normalises = self.do_normalize.unwrap_or(class.channels != Channels::Flipped);
        let missing = || "image_mean or image_std is missing".to_owned();
        let (mean, deviation) = match normalises {
            true => (mean.ok_or_else(missing)?, std.clone().ok_or_else(missing)?),
            false => (vec![0.0], vec![1.0]),
        };
        let mean = mean.into_iter().map(|mean| mean + offset).collect();
        let deviation = match is_efficientnet && self.include_top.unwrap_or(true) {
            true => {
                // What is left of normalising with a mean of 0, after whatever went before.
                let again = std.ok_or_else(missing)?;
                let n = again.len().max(deviation.len());
                again.iter().cycle().zip(deviation.iter().cycle()).take(n).map(|(a, b)| a * b).collect()
            }
            false => deviation,
        };
        Ok([vec![scale], mean, deviation])
    }

    fn color(&self, class: &Class) -> Result<Color, String> {
        match (class.channels, self.do_flip_channel_order) {
            (Channels::Flipped, None | Some(true)) => Ok(Color::Bgr),
            (Channels::Rgb, Some(true)) => {
                Err(format!("do_flip_channel_order is not read by the image processor of {}", class.name))
            }
            _ => Ok(Color::Rgb),
        }
    }

    fn filter(&self, class: &Class) -> Result<Filter, String> {
        // Pillow's numbers.
        match self.resample {
            Some(0) => Ok(Filter::Nearest),
            Some(1) => Ok(Filter::Lanczos),
            Some(2) => Ok(Filter::Bilinear),
            Some(3) => Ok(Filter::Bicubic),
            Some(4) => Ok(Filter::Box),
            Some(5) => Ok(Filter::Hamming),
            Some(other) => Err(format!("resample is {other}; expected 0 to 5, a filter of Pillow")),
            None => {
                class.resample.or((self.do_resize == Some(false)).then_some(Filter::Bilinear)).ok_or_else(
                    || "resample is missing, and no image_processor_type says what is usual".to_owned(),
                )
            }
        }
    }
}

/// Where the channels stand: behind, where only the last axis can be them.
fn layout(port: &Port) -> Layout {
    let may = |axis: usize| matches!(port.shape.get(axis), Some(Dim::Fixed(1 | 3)));
    if may(3) && !may(1) { Layout::Nhwc } else { Layout::Nchw }
}

#[cfg(test)]
mod tests;
