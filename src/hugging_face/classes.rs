//! The image processors of transformers that are known, each with the values that its class has where
//! `preprocessor_config.json` leaves a key out (read from their source, transformers 4.57.6).
//!
//! Invariant: a class that is not listed is refused by its name; a default is never guessed.

use crate::manifest::Filter;

/// What a class of image processors does with its keys, and what it takes where one is left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Class {
    /// As in `ViT` of `ViTImageProcessor`, `ViTImageProcessorFast` and `ViTFeatureExtractor`.
    pub(super) name: &'static str,
    /// What a `size` that is one number means.
    pub(super) number: Number,
    /// Its `size`, as that number; nothing where a folder has to say it.
    pub(super) size: Option<u32>,
    pub(super) resample: Option<Filter>,
    pub(super) scaling: Scaling,
    /// Whether it cuts the middle out, and to which side.
    pub(super) crop: Crop,
    /// The mean and the deviation that it normalises by; nothing where it does not normalise or has to be told.
    pub(super) normal: Option<[[f32; 3]; 2]>,
    pub(super) channels: Channels,
    pub(super) extra: Extra,
}

/// What a size of one number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// Width and height.
    Square,
    /// The shorter side.
    Shortest,
    /// Nothing: both sides have to be written.
    Unclear,
}

/// How `size` becomes the size that a picture is scaled to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scaling {
    Plain,
    /// `size / crop_pct` and a cut of `size`; from 384 on no cut. The number is the default of `crop_pct`.
    ConvNext(f64),
    /// `size / crop_pct`.
    PoolFormer(f64),
    /// 256/224 of a shortest edge.
    Levit,
}

/// Whether a class cuts the middle out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crop {
    /// It knows no cut.
    Unknown,
    /// It cuts where `do_center_crop` says so, to this side where `crop_size` is left out.
    Off(u32),
    /// It cuts unless `do_center_crop` is false.
    On(u32),
}

/// The order of the channels that a class makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channels {
    Rgb,
    /// Blue first, unless `do_flip_channel_order` is false.
    Flipped,
}

/// Keys that only some classes know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extra {
    None,
    /// `rescale_offset`, and `include_top`, which divides by the deviation once more unless it is false.
    EfficientNet,
}

const HALF: Option<[[f32; 3]; 2]> = Some([[0.5; 3]; 2]);
const IMAGENET: Option<[[f32; 3]; 2]> = Some([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]);
const CLIP: Option<[[f32; 3]; 2]> =
    Some([[0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]]);

/// The most common one, which others differ from.
const VIT: Class = Class {
    name: "ViT",
    number: Number::Square,
    size: Some(224),
    resample: Some(Filter::Bilinear),
    scaling: Scaling::Plain,
    crop: Crop::Unknown,
    normal: HALF,
    channels: Channels::Rgb,
    extra: Extra::None,
};

/// Scales the shorter side, and cuts a square out.
const CLIP_LIKE: Class = Class {
    number: Number::Shortest,
    resample: Some(Filter::Bicubic),
    crop: Crop::On(224),
    normal: CLIP,
    ..VIT
};

const CLASSES: [Class; 18] = [
    VIT,
    Class { name: "DeiT", size: Some(256), resample: Some(Filter::Bicubic), crop: Crop::On(224), ..VIT },
    Class { name: "Beit", size: Some(256), resample: Some(Filter::Bicubic), crop: Crop::On(224), ..VIT },
    Class {
        name: "ConvNext",
        number: Number::Shortest,
        size: Some(384),
        scaling: Scaling::ConvNext(224.0 / 256.0),
        ..VIT
    },
    Class { name: "CLIP", ..CLIP_LIKE },
    Class { name: "ChineseCLIP", ..CLIP_LIKE },
    Class { name: "Bit", ..CLIP_LIKE },
    Class { name: "ViTHybrid", ..CLIP_LIKE },
    Class { name: "Siglip", resample: Some(Filter::Bicubic), ..VIT },
    Class {
        name: "EfficientNet",
        size: Some(346),
        resample: Some(Filter::Nearest),
        crop: Crop::Off(289),
        extra: Extra::EfficientNet,
        ..VIT
    },
    Class { name: "MobileNetV1", number: Number::Shortest, size: Some(256), crop: Crop::On(224), ..VIT },
    Class { name: "MobileNetV2", number: Number::Shortest, size: Some(256), crop: Crop::On(224), ..VIT },
    Class {
        name: "MobileViT",
        number: Number::Shortest,
        crop: Crop::On(256),
        normal: None,
        channels: Channels::Flipped,
        ..VIT
    },
    Class { name: "Levit", scaling: Scaling::Levit, normal: IMAGENET, ..CLIP_LIKE },
    Class { name: "PoolFormer", scaling: Scaling::PoolFormer(0.9), normal: IMAGENET, ..CLIP_LIKE },
    Class { name: "Pvt", normal: IMAGENET, ..VIT },
    Class {
        name: "EfficientFormer",
        resample: Some(Filter::Bicubic),
        crop: Crop::On(224),
        normal: IMAGENET,
        ..VIT
    },
    Class { name: "Segformer", size: Some(512), normal: IMAGENET, ..VIT },
];

/// A processor that neither the folder nor its `model_type` names: everything has to be written.
pub(super) const UNNAMED: Class = Class {
    name: "an unnamed image processor",
    number: Number::Unclear,
    size: None,
    resample: None,
    crop: Crop::Off(0),
    normal: None,
    ..VIT
};

/// Which class a folder of a `model_type` uses that names none (`IMAGE_PROCESSOR_MAPPING_NAMES`).
const BY_MODEL_TYPE: [(&str, &str); 35] = [
    ("beit", "Beit"),
    ("bit", "Bit"),
    ("chinese_clip", "ChineseCLIP"),
    ("clip", "CLIP"),
    ("convnext", "ConvNext"),
    ("convnextv2", "ConvNext"),
    ("cvt", "ConvNext"),
    ("data2vec-vision", "Beit"),
    ("deit", "DeiT"),
    ("dinat", "ViT"),
    ("dinov2", "Bit"),
    ("efficientformer", "EfficientFormer"),
    ("efficientnet", "EfficientNet"),
    ("focalnet", "Bit"),
    ("hiera", "Bit"),
    ("ijepa", "ViT"),
    ("levit", "Levit"),
    ("mobilenet_v1", "MobileNetV1"),
    ("mobilenet_v2", "MobileNetV2"),
    ("mobilevit", "MobileViT"),
    ("mobilevitv2", "MobileViT"),
    ("nat", "ViT"),
    ("poolformer", "PoolFormer"),
    ("pvt", "Pvt"),
    ("pvt_v2", "Pvt"),
    ("regnet", "ConvNext"),
    ("resnet", "ConvNext"),
    ("segformer", "Segformer"),
    ("siglip", "Siglip"),
    ("swiftformer", "ViT"),
    ("swin", "ViT"),
    ("swinv2", "ViT"),
    ("van", "ConvNext"),
    ("vit", "ViT"),
    ("vit_hybrid", "ViTHybrid"),
];

/// Whether a class is the one that resizes by Pillow, or its faster twin, which reads more keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    Slow,
    Fast,
}

/// Finds the class that a folder names, as in `ViTImageProcessor`.
pub(super) fn named(name: &str) -> Result<(Class, Variant), String> {
    let (stem, variant) = match name.strip_suffix("Fast") {
        Some(stem) => (stem, Variant::Fast),
        None => (name, Variant::Slow),
    };
    let stem = stem.strip_suffix("ImageProcessor").or_else(|| stem.strip_suffix("FeatureExtractor"));
    let found = stem.and_then(|stem| CLASSES.into_iter().find(|class| class.name == stem));
    let known = || CLASSES.map(|class| class.name).join(", ");
    found
        .map(|class| (class, variant))
        .ok_or_else(|| format!("the image processor {name:?} is not served; known are those of {}", known()))
}

/// The class of a folder that names none.
pub(super) fn of_model_type(model_type: Option<&str>) -> Class {
    let name = BY_MODEL_TYPE.into_iter().find(|(known, _)| Some(*known) == model_type).map(|(_, name)| name);
    name.and_then(|name| CLASSES.into_iter().find(|class| class.name == name)).unwrap_or(UNNAMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_found_by_each_of_its_names() {
        for name in ["ViTImageProcessor", "ViTFeatureExtractor"] {
            assert_eq!(named(name), Ok((VIT, Variant::Slow)));
        }
        assert_eq!(named("ViTImageProcessorFast"), Ok((VIT, Variant::Fast)));
        for name in ["ViT", "PerceiverImageProcessor", "Wav2Vec2FeatureExtractor", ""] {
            let error = named(name).unwrap_err();
            assert!(error.contains("is not served; known are those of ViT, DeiT"), "{error}");
        }
    }

    #[test]
    fn every_model_type_has_a_class() {
        for (model_type, name) in BY_MODEL_TYPE {
            assert_eq!(of_model_type(Some(model_type)).name, name);
        }
        assert_eq!(of_model_type(Some("wav2vec2")), UNNAMED);
        assert_eq!(of_model_type(None), UNNAMED);
    }
}
