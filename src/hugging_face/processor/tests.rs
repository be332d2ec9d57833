//! Files as the processors of transformers write them, and what becomes of them.

use lepton_testkit::pictures;

use super::*;
use crate::image::{ImageLimits, Picture, Preprocessing};

fn port(shape: &[usize]) -> Port {
    let batch = Dim::Free("batch".to_owned());
    let shape = std::iter::once(batch).chain(shape.iter().map(|n| Dim::Fixed(*n))).collect();
    Port { name: "pixel_values".to_owned(), dtype: DType::F32, shape, batch_axis: Some(0) }
}

fn free() -> Port {
    let dims = ["batch", "num_channels", "height", "width"];
    Port { shape: dims.map(|name| Dim::Free(name.to_owned())).to_vec(), ..port(&[]) }
}

fn read(json: &str, config: &str, port: &Port) -> Result<ImageInputSpec, String> {
    let preprocessor: Preprocessor = serde_json::from_str(json).map_err(|error| error.to_string())?;
    preprocessor.input(&serde_json::from_str(config).unwrap(), port)
}

/// What a class makes of its keys, for a network that takes any size.
fn class(name: &str, keys: &str) -> Result<ImageInputSpec, String> {
    let comma = if keys.is_empty() { "" } else { ", " };
    read(&format!(r#"{{"image_processor_type": "{name}"{comma}{keys}}}"#), "{}", &free())
}

fn geometry(name: &str, keys: &str) -> (u32, u32, Fit) {
    let input = class(name, keys).unwrap_or_else(|error| panic!("{name} {keys}: {error}"));
    (input.width, input.height, input.fit)
}

#[test]
fn a_vit_stretches_and_everything_is_said() {
    let input = class(
        "ViTImageProcessor",
        r#""do_resize": true, "size": {"height": 224, "width": 192}, "resample": 3, "do_rescale": true,
            "rescale_factor": 0.00392156862745098, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2]"#,
    );
    let expected = ImageInputSpec {
        name: "pixel_values".to_owned(),
        width: 192,
        height: 224,
        color: Color::Rgb,
        layout: Layout::Nchw,
        fit: Fit::Stretch,
        filter: Filter::Bicubic,
        resampling: Resampling::Exact,
        scale: 1.0 / 255.0,
        mean: vec![0.5, 0.4, 0.3],
        std: vec![0.2, 0.2, 0.2],
    };
    assert_eq!(input.unwrap(), expected);
}

#[test]
fn a_size_of_one_number_means_what_it_means_to_its_class() {
    let short = |side| (224, 224, Fit::ShortestSide(side));
    for (name, keys, expected) in [
        ("ViTFeatureExtractor", r#""size": 224"#, (224, 224, Fit::Stretch)),
        ("ViTFeatureExtractor", r#""size": [224, 192]"#, (192, 224, Fit::Stretch)),
        ("CLIPFeatureExtractor", r#""size": 224, "crop_size": 224, "do_center_crop": true"#, short(224)),
        ("ConvNextFeatureExtractor", r#""size": 224"#, short(256)),
        ("ConvNextFeatureExtractor", r#""size": 224, "crop_pct": 0.95"#, short(235)),
        ("ConvNextFeatureExtractor", r#""size": 384"#, (384, 384, Fit::Stretch)),
        ("MobileViTFeatureExtractor", r#""size": 288, "crop_size": 256"#, (256, 256, Fit::ShortestSide(288))),
        (
            "DeiTFeatureExtractor",
            r#""size": 256, "crop_size": 224"#,
            (224, 224, Fit::StretchTo { width: 256, height: 256 }),
        ),
        ("BeitFeatureExtractor", r#""size": 224, "do_center_crop": false"#, (224, 224, Fit::Stretch)),
        ("LevitFeatureExtractor", r#""size": 224"#, short(256)),
        ("PoolFormerFeatureExtractor", r#""size": 224, "crop_pct": 0.95"#, short(235)),
    ] {
        assert_eq!(geometry(name, keys), expected, "{name} {keys}");
    }
}

#[test]
fn keys_that_are_left_out_have_the_values_of_their_class() {
    // to_dict() of each class of transformers 4.57.6
    let vit = class("ViTImageProcessor", "").unwrap();
    assert_eq!(
        (vit.fit, vit.filter, vit.mean, vit.std),
        (Fit::Stretch, Filter::Bilinear, vec![0.5; 3], vec![0.5; 3])
    );
    assert_eq!(geometry("DeiTImageProcessor", ""), (224, 224, Fit::StretchTo { width: 256, height: 256 }));
    assert_eq!(geometry("BeitImageProcessor", ""), (224, 224, Fit::StretchTo { width: 256, height: 256 }));
    assert_eq!(geometry("ConvNextImageProcessor", ""), (384, 384, Fit::Stretch));
    assert_eq!(geometry("CLIPImageProcessor", ""), (224, 224, Fit::ShortestSide(224)));
    assert_eq!(geometry("SiglipImageProcessor", ""), (224, 224, Fit::Stretch));
    assert_eq!(geometry("EfficientNetImageProcessor", ""), (346, 346, Fit::Stretch));
    assert_eq!(geometry("MobileNetV1ImageProcessor", ""), (224, 224, Fit::ShortestSide(256)));
    assert_eq!(geometry("MobileNetV2ImageProcessorFast", ""), (224, 224, Fit::ShortestSide(256)));
    assert_eq!(geometry("MobileViTImageProcessor", ""), (256, 256, Fit::ShortestSide(224)));
    assert_eq!(geometry("PoolFormerImageProcessor", ""), (224, 224, Fit::ShortestSide(248)));
    let mobile = class("MobileViTImageProcessor", "").unwrap();
    assert_eq!((mobile.color, mobile.mean, mobile.std), (Color::Bgr, vec![0.0], vec![1.0]));
    let clip = class("CLIPImageProcessor", "").unwrap();
    assert_eq!((clip.filter, clip.mean[0]), (Filter::Bicubic, 0.481_454_66));
    assert_eq!(class("EfficientNetImageProcessor", "").unwrap().filter, Filter::Nearest);
    assert_eq!(class("LevitImageProcessor", "").unwrap().mean, [0.485, 0.456, 0.406]);
}

#[test]
fn an_efficientnet_shifts_and_divides_twice() {
    let numbers = |keys: &str| {
        let input = class("EfficientNetImageProcessor", keys).unwrap();
        (input.scale, input.mean[0], input.std[0])
    };
    let written = r#""image_mean": [0.25, 0.25, 0.25], "image_std": [0.5, 0.5, 0.5]"#;
    assert_eq!(numbers(written), (1.0 / 255.0, 0.25, 0.25));
    assert_eq!(numbers(&format!(r#"{written}, "include_top": false"#)), (1.0 / 255.0, 0.25, 0.5));
    let shifted =
        format!(r#"{written}, "include_top": false, "rescale_offset": true, "rescale_factor": 0.0078125"#);
    assert_eq!(numbers(&shifted), (0.007_812_5, 1.25, 0.5));
    let plain = format!(r#"{written}, "do_normalize": false, "include_top": true"#);
    assert_eq!(numbers(&plain), (1.0 / 255.0, 0.0, 0.5));
    let raw = r#""do_rescale": false, "do_normalize": false, "include_top": false, "rescale_offset": true"#;
    assert_eq!(numbers(raw), (1.0, 0.0, 1.0));
}

#[test]
fn channels_are_flipped_where_the_class_flips_them() {
    let color = |keys: &str| class("MobileViTImageProcessor", keys).unwrap().color;
    assert_eq!(color(r#""do_flip_channel_order": true"#), Color::Bgr);
    assert_eq!(color(r#""do_flip_channel_order": false"#), Color::Rgb);
}

#[test]
fn every_filter_of_pillow_is_known() {
    let filter =
        |n: u32| class("ViTImageProcessor", &format!(r#""resample": {n}"#)).map(|input| input.filter);
    let known: Vec<Filter> = (0..6).map(|n| filter(n).unwrap()).collect();
    use Filter::{Bicubic, Bilinear, Box, Hamming, Lanczos, Nearest};
    assert_eq!(known, [Nearest, Lanczos, Bilinear, Bicubic, Box, Hamming]);
    assert!(filter(6).unwrap_err().contains("resample is 6; expected 0 to 5"));
}

#[test]
fn a_folder_that_names_no_class_has_that_of_its_model_type() {
    let keys = r#"{"size": 224, "image_mean": 0.5, "image_std": 0.5, "resample": 2}"#;
    let input = |config: &str| read(keys, config, &free()).map(|input| (input.fit, input.mean));
    assert_eq!(input(r#"{"model_type": "swin"}"#), Ok((Fit::Stretch, vec![0.5])));
    assert_eq!(input(r#"{"model_type": "resnet"}"#), Ok((Fit::ShortestSide(256), vec![0.5])));
    assert!(input("{}").unwrap_err().contains("no image_processor_type says which side"));
    let whole =
        r#"{"size": {"height": 8, "width": 8}, "image_mean": [0.5], "image_std": [0.5], "resample": 2}"#;
    assert_eq!(read(whole, "{}", &free()).unwrap().fit, Fit::Stretch);
    for (left_out, expected) in [
        (r#"{"image_mean": [0.5], "image_std": [0.5], "resample": 2}"#, "names no size"),
        (r#"{"size": {"height": 8, "width": 8}, "resample": 2}"#, "image_mean or image_std is missing"),
        (r#"{"size": {"height": 8, "width": 8}, "image_mean": 0, "image_std": 1}"#, "resample is missing"),
    ] {
        let error = read(left_out, "{}", &free()).unwrap_err();
        assert!(error.contains(expected), "{left_out}: {error}");
    }
}

#[test]
fn a_key_that_may_change_the_answer_is_refused_by_its_name() {
    for (name, keys, expected) in [
        ("ViTImageProcessor", r#""do_pad": true"#, "\"do_pad\" (true) is not served"),
        ("ViTImageProcessor", r#""auto_map": {"a": "b"}"#, "\"auto_map\""),
        ("ViTImageProcessor", r#""data_format": "channels_last""#, "\"data_format\""),
        ("ViTImageProcessor", r#""rescale_offset": true"#, "rescale_offset is not read"),
        ("ViTImageProcessor", r#""include_top": true"#, "include_top is not read"),
        ("ViTImageProcessor", r#""do_flip_channel_order": true"#, "do_flip_channel_order is not read"),
        ("ViTImageProcessor", r#""crop_pct": 0.9"#, "crop_pct is not read"),
        ("ViTImageProcessor", r#""do_center_crop": true, "crop_size": 200"#, "do_center_crop is not read"),
        ("ViTImageProcessor", r#""do_resize": false"#, "do_resize is false"),
        ("ViTImageProcessor", r#""size": {"shortest_edge": 224}"#, "without do_center_crop"),
        ("ViTImageProcessor", r#""size": {"longest_edge": 224}"#, "expected a number, height and width"),
        ("ConvNextImageProcessor", r#""size": {"height": 8, "width": 8}"#, "expects shortest_edge"),
        ("ConvNextImageProcessor", r#""size": 224, "crop_pct": 0"#, "crop_pct is 0"),
        ("CLIPImageProcessor", r#""do_center_crop": false"#, "without do_center_crop"),
        ("MobileViTImageProcessor", r#""do_normalize": true"#, "do_normalize is not read"),
        ("PerceiverImageProcessor", "", "\"PerceiverImageProcessor\" is not served"),
    ] {
        let error = class(name, keys).unwrap_err();
        assert!(error.starts_with(PREPROCESSOR) && error.contains(expected), "{name} {keys}: {error}");
    }
}

#[test]
fn keys_that_change_nothing_are_passed_over() {
    let idle = r#""_processor_class": null, "do_pad": false, "pad_size": null, "do_convert_rgb": true, "device": null,
        "data_format": "channels_first", "crop_size": null, "do_center_crop": null, "default_to_square": true,
        "disable_grouping": null, "input_data_format": null, "return_tensors": null, "anything": null"#;
    assert_eq!(class("ViTImageProcessorFast", idle), class("ViTImageProcessor", ""));
    let whole = r#""size": 224, "do_center_crop": true, "crop_size": 224"#;
    assert_eq!(geometry("ViTImageProcessor", whole), (224, 224, Fit::Stretch));
}

#[test]
fn the_network_s_own_input_has_its_say() {
    let keys =
        r#"{"image_processor_type": "ViTImageProcessor", "size": 8, "image_mean": 0.5, "image_std": 0.5}"#;
    assert_eq!(read(keys, "{}", &port(&[1, 8, 8])).unwrap().color, Color::Gray);
    let behind = read(keys, "{}", &port(&[8, 8, 3])).unwrap();
    assert_eq!((behind.layout, behind.color), (Layout::Nhwc, Color::Rgb));
    let error = read(keys, "{}", &port(&[3, 9, 8])).unwrap_err();
    assert!(
        error.contains("make pictures of 8 x 8, but the network's input `pixel_values` is f32"),
        "{error}"
    );
    let bytes = Port { dtype: DType::U8, ..port(&[3, 8, 8]) };
    assert!(read(keys, "{}", &bytes).unwrap_err().contains("expected do_rescale and do_normalize false"));
    let raw = r#"{"image_processor_type": "ViTImageProcessor", "size": 8, "do_rescale": false, "do_normalize": false}"#;
    assert_eq!(read(raw, "{}", &bytes).unwrap().scale, 1.0);
    let three = r#"{"image_processor_type": "ViTImageProcessor", "size": 8}"#;
    let error = read(three, "{}", &port(&[1, 8, 8])).unwrap_err();
    assert!(error.contains("image_mean has 3 numbers, but the network's input has 1 channels"), "{error}");
}

/// What a processor of transformers made of two pictures (`tests/differential/folders.py --golden`).
#[derive(Deserialize)]
struct Golden {
    name: String,
    model_type: String,
    processor: Value,
    made: Vec<Made>,
}

#[derive(Deserialize)]
struct Made {
    /// Width and height of the picture.
    size: [u32; 2],
    /// Of the network's input.
    shape: [usize; 3],
    /// Every number at a multiple of it is told.
    step: usize,
    numbers: Vec<f32>,
}

/// The picture that the script draws, too.
fn drawn([width, height]: [u32; 2]) -> Picture {
    let level = |x: u32, y: u32, c: u32| ((x * 7 + y * 13 + c * 37 + x * y % 31 * 5) % 256) as u8;
    let samples: Vec<u8> =
        (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| level(x, y, c)))).collect();
    let file = pictures::raw_png(width, height, pictures::PngKind::Rgb, 8, &samples);
    let limits = ImageLimits { pixels: 1 << 20, side: 1024, memory: 1 << 28 };
    Picture::decode(&file, limits, crate::image::Channels::Rgb).unwrap()
}

#[test]
fn every_processor_makes_the_numbers_that_transformers_makes() {
    let golden: Vec<Golden> = serde_json::from_str(include_str!("golden.json")).unwrap();
    assert!(golden.len() > 35, "only {} processors", golden.len());
    for Golden { name, model_type, processor, made } in golden {
        for Made { size, shape, step, numbers } in made {
            let config = format!(r#"{{"model_type": "{model_type}"}}"#);
            let input = read(&processor.to_string(), &config, &port(&shape)).unwrap();
            let picture = drawn(size);
            let row = Preprocessing::new(&input).row(&picture, picture.whole()).unwrap();
            assert_eq!(row.len(), shape.iter().product::<usize>(), "{name}");
            for (at, (got, expected)) in row.iter().step_by(step).zip(numbers).enumerate() {
                let differ = (got - expected).abs();
                assert!(differ < 1e-4, "{name}, {size:?}: number {} is {got}, not {expected}", at * step);
            }
        }
    }
}
