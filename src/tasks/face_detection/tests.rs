//! From a picture to a row, and from fixed outputs to faces.

use bytes::Bytes;
use lepton_testkit::pictures;

use super::*;
use crate::{
    engine::Port,
    manifest::{Color, Filter},
    tasks::{Billing, OptionValue, RegionStep, TaskOptions},
};

const OPTIONS: TaskOptions =
    TaskOptions { image: ImageLimits { pixels: 1_000_000, side: 4096, memory: 1 << 28 } };

fn free(name: &str) -> Dim {
    Dim::Free(name.to_owned())
}

fn port(name: &str, channels: usize) -> Port {
    let shape = vec![free("batch"), Dim::Fixed(channels), free("height"), free("width")];
    Port { name: name.to_owned(), dtype: DType::F32, shape, batch_axis: Some(0) }
}

fn signature() -> Signature {
    Signature { inputs: vec![port("image", 3)], outputs: vec![port("stride_32", 15), port("stride_16", 15)] }
}

fn spec() -> FaceDetectionSpec {
    let grid = |stride| GridSpec { name: format!("stride_{stride}"), stride };
    FaceDetectionSpec {
        labels: Labels::Inline(vec!["face".to_owned()]),
        temperature: 2.0,
        thresholds: vec![0.5, 0.8],
        overlap: 0.45,
        sides: vec![320, 640],
        input: SceneInputSpec {
            name: "image".to_owned(),
            color: Color::Rgb,
            filter: Filter::Bilinear,
            scale: 1.0 / 255.0,
            mean: vec![0.5],
            std: vec![0.25],
        },
        // Not in the order of the network's outputs.
        outputs: vec![grid(16), grid(32)],
    }
}

fn build(spec: &FaceDetectionSpec, signature: &Signature) -> Result<FaceDetection, SpecError> {
    let context = BuildContext { dir: Path::new("nowhere"), signature, endings: &[], options: OPTIONS };
    FaceDetection::build(spec, &context)
}

fn task() -> FaceDetection {
    build(&spec(), &signature()).unwrap()
}

fn refusal(change: impl FnOnce(&mut FaceDetectionSpec, &mut Signature)) -> String {
    let (mut spec, mut signature) = (spec(), signature());
    change(&mut spec, &mut signature);
    build(&spec, &signature).map(|_| ()).unwrap_err().to_string()
}

/// Empty grids for a canvas, in the order of the network's outputs.
fn nothing([width, height]: [u32; 2]) -> Tensors {
    let grid = |stride: u32| {
        let (rows, columns) = ((height / stride) as usize, (width / stride) as usize);
        let mut values = vec![-9.0; rows * columns];
        values.resize(15 * rows * columns, 0.0);
        Tensor::new::<f32>(vec![15, rows, columns], values).unwrap()
    };
    [32, 16].map(grid).into()
}

/// Writes a face into the cell of a grid.
fn put(grid: &mut Tensor, [column, row]: [usize; 2], cell: &[f32]) {
    let (shape, mut values) = (grid.shape().to_vec(), grid.as_slice::<f32>().unwrap().to_vec());
    for (channel, value) in cell.iter().enumerate() {
        values[(channel * shape[1] + row) * shape[2] + column] = *value;
    }
    *grid = Tensor::new(shape, values).unwrap();
}

fn context(letterbox: Letterbox, least: f32) -> Context {
    Context::new(Scene { letterbox, least })
}

fn detections(answer: Answer) -> Vec<Detection> {
    let Output::Detections(detections) = answer.output else { panic!("{answer:?}") };
    detections
}

fn faces(outputs: Tensors, letterbox: Letterbox) -> Vec<Detection> {
    detections(task().postprocess(outputs, &context(letterbox, 0.0)).unwrap())
}

fn side(side: Option<u64>) -> Options {
    let mut options = Options::default();
    side.map(|side| options.insert("side", OptionValue::Integer(side)));
    options
}

fn size(long: Option<u64>) -> RequestSize {
    RequestSize { bytes: Some(9), options: side(long) }
}

#[test]
fn a_picture_is_laid_on_the_canvas_of_the_side_that_was_asked_for() {
    let jpeg = Bytes::from(pictures::oriented_jpeg(&pictures::draw(60, 90), 6));
    for (look, shape, shown, threshold) in [
        (None, [3, 128, 320], [180, 120], 0.5_f32),
        (Some(640), [3, 128, 256], [180, 120], 0.8),
        (Some(320), [3, 128, 320], [180, 120], 0.5),
    ] {
        let input = Input::image(jpeg.clone()).with(&side(look));
        let Prepared { row, shape: number, context, .. } = task().preprocess(input).unwrap();
        // The picture is small: it is enlarged twice and no more, and shares a canvas with others.
        let canvas = if look == Some(640) { [256, 256] } else { [shape[2] as u32, shape[1] as u32] };
        assert_eq!(row[0].shape(), [3, canvas[1] as usize, canvas[0] as usize]);
        assert_eq!(number, (canvas[0] / 32 * canvas[1] / 32) as usize);
        let letterbox = Letterbox { picture: [90, 60], shown, canvas };
        // Of a temperature of 2.
        let least = (threshold / (1.0 - threshold)).ln() * 2.0;
        assert_eq!(context.get::<Scene>().unwrap(), &Scene { letterbox, least });
    }
    let wrong = task().preprocess(Input::image(jpeg).with(&side(Some(512)))).unwrap_err();
    assert_eq!(task().check(&side(Some(512))), Err(wrong.clone()));
    assert_eq!(wrong.to_string(), "side is 512; allowed are 320, 640");
}

#[test]
fn the_shape_is_guessed_from_the_side() {
    let task = task();
    let of = |side| task.shape_class(&size(side));
    assert_eq!([of(None), of(Some(320)), of(Some(640))], [80, 80, 320].map(ShapeClass::Likely));
    assert!(task.profile_inputs().is_sorted_by_key(ProfileInput::size));
}

#[test]
fn faces_are_answered_in_pixels_of_the_picture_the_surest_first() {
    // A picture of 1000 x 500, shown at 320 x 160 on a canvas of 320 x 192.
    let letterbox = lay(1000, 500, 320);
    assert_eq!(letterbox.shown, [320, 160]);
    let mut outputs = nothing(letterbox.canvas);
    put(&mut outputs[0], [2, 1], &[2.0, 0.5, 0.5, 2f32.ln(), 2f32.ln()]);
    put(&mut outputs[1], [16, 8], &[4.0, 0.0, 0.0, 0.0, 0.0]);
    let faces = faces(outputs, letterbox);
    assert_eq!(faces.len(), 2);
    let [surer, other] = [&faces[0], &faces[1]];
    assert!((surer.score - 0.880_797).abs() < 1e-6 && (other.score - 0.731_058).abs() < 1e-6);
    assert_eq!(surer.area, Area { x: 775.0, y: 375.0, width: 50.0, height: 50.0 });
    assert_eq!(other.area, Area { x: 150.0, y: 50.0, width: 200.0, height: 200.0 });
    assert_eq!(surer.landmarks.first(), Some(&[800.0, 400.0]));
}

#[test]
fn a_face_at_the_edge_is_clipped_and_one_beyond_is_none() {
    let letterbox = lay(1000, 500, 320);
    let mut outputs = nothing(letterbox.canvas);
    put(&mut outputs[0], [0, 0], &[2.0, 0.0, 0.0, 2f32.ln(), 2f32.ln()]);
    put(&mut outputs[0], [9, 4], &[2.0, 5.0, 5.0, 0.0, 0.0]);
    put(&mut outputs[1], [10, 5], &[2.0, 0.5, 0.5, -1e9, 0.0]);
    let faces = faces(outputs, letterbox);
    let areas: Vec<Area> = faces.iter().map(|face| face.area).collect();
    assert_eq!(areas, [Area { x: 0.0, y: 0.0, width: 100.0, height: 100.0 }]);
}

#[test]
fn hostile_numbers_are_a_fault_or_finite() {
    let letterbox = lay(1000, 500, 320);
    let context = context(letterbox, 0.0);
    for (channel, value) in [(0, f32::NAN), (3, f32::INFINITY), (14, f32::NEG_INFINITY)] {
        let mut outputs = nothing(letterbox.canvas);
        let mut cell = [0.0; 15];
        cell[channel] = value;
        put(&mut outputs[1], [3, 3], &cell);
        assert!(matches!(task().postprocess(outputs, &context), Err(Error::Internal(_))));
    }
    let mut outputs = nothing(letterbox.canvas);
    put(&mut outputs[0], [1, 1], &[f32::MAX, f32::MIN, f32::MAX, f32::MAX, f32::MAX]);
    put(&mut outputs[1], [3, 3], &[f32::MAX, 0.0, 0.0, f32::MAX, f32::MAX]);
    let faces = faces(outputs, letterbox);
    assert_eq!(faces.len(), 1);
    assert_eq!((faces[0].score, faces[0].area.width, faces[0].area.height), (1.0, 1000.0, 500.0));
}

/// Notes that the picture came in colour.
struct Colorful;

impl RegionStep for Colorful {
    fn needs_color(&self) -> bool {
        true
    }

    fn items(&self, _: &Picture, _: &Answer) -> Result<Vec<Item>, Error> {
        Ok(Vec::new())
    }
}

#[test]
fn the_decoded_picture_is_kept_for_the_step_that_follows() {
    let png = Bytes::from(pictures::png(&pictures::draw(640, 320)));
    let step: Arc<dyn RegionStep> = Arc::new(Colorful);
    let kept = task().preprocess(Input::image(png.clone()).followed_by(&step)).unwrap().picture.unwrap();
    assert_eq!((kept.width(), kept.height(), kept.channels()), (640, 320, Channels::Rgb));
    assert_eq!(task().preprocess(Input::image(png)).unwrap().picture, None);
}

#[test]
fn a_crowd_is_answered_up_to_a_number() {
    let letterbox = lay(640, 640, 640);
    let mut outputs = nothing(letterbox.canvas);
    for cell in 0..1600 {
        put(&mut outputs[1], [cell % 40, cell / 40], &[1.0, 0.5, 0.5, -1.0, -1.0]);
    }
    assert_eq!(faces(outputs, letterbox).len(), MOST_FACES);
}

#[test]
fn what_is_compared_is_scores_and_places() {
    let task = task();
    let inputs = task.calibration_inputs();
    let Prepared { row, context, .. } = &inputs[0];
    assert_eq!((inputs.len() as u64, row[0].shape()), (N_INPUTS, [3, 128, 128].as_slice()));
    let Scene { letterbox, .. } = context.get().unwrap();
    let mut outputs = nothing(letterbox.canvas);
    put(&mut outputs[1], [0, 0], &[0.0, 1.0]);
    let compared = task.scores(outputs, context).unwrap();
    assert_eq!(compared.len(), 15 * (8 * 8 + 4 * 4));
    // The manifest's first grid is the network's second.
    assert_eq!((compared[0], compared[64]), (0.5, 0.1));
}

#[test]
fn a_text_and_a_broken_image_are_refused() {
    assert!(matches!(task().preprocess(Input::text("good")), Err(Error::Invalid(_))));
    let broken = Bytes::from_static(b"\xff\xd8\xff\xe0");
    assert!(matches!(task().preprocess(Input::image(broken)), Err(Error::Malformed(_))));
}

#[test]
fn a_spec_that_does_not_fit_the_network_is_refused_with_what_would() {
    let cases = [
        (
            refusal(|spec, _| spec.labels = Labels::Inline(vec![])),
            "the list of labels has 0 labels, but a detector finds 1 thing",
        ),
        (refusal(|spec, _| spec.sides = vec![]), "sides has 0 values, but 1 to 4 are allowed"),
        (
            refusal(|spec, _| spec.sides = vec![320, 500]),
            "sides has 500, but multiples of 32 from 64 to 1280 are allowed",
        ),
        (refusal(|spec, _| spec.sides = vec![320, 320]), "sides has 320 twice"),
        (refusal(|spec, _| spec.thresholds = vec![1.0]), "thresholds is 1, but it must be between 0 and 1"),
        (
            refusal(|spec, _| spec.thresholds = vec![0.5; 3]),
            "thresholds has 3 values, but 1 or 2 are allowed, one for each side",
        ),
        (refusal(|spec, _| spec.overlap = f32::NAN), "overlap is NaN, but it must be between 0 and 1"),
        (refusal(|spec, _| spec.temperature = 0.0), "temperature is 0, but it must be a number above 0"),
        (refusal(|spec, _| spec.input.std = vec![0.0]), "std is [0.0], but samples cannot be divided by 0"),
        (
            refusal(|_, signature| signature.inputs[0].shape[2] = Dim::Fixed(320)),
            "input \"image\" is f32 [batch, 3, 320, width], but pictures of any size are f32 [batch, 3, height, width], \
             the last two free",
        ),
        (
            refusal(|spec, _| spec.outputs[0].name = "boxes".to_owned()),
            "outputs names \"boxes\", but the network's outputs are stride_32, stride_16",
        ),
        (
            refusal(|spec, _| spec.outputs[0].stride = 12),
            "output \"stride_16\" has stride 12, but 4, 8, 16 and 32 are allowed",
        ),
        (
            refusal(|spec, _| spec.outputs[0].stride = 32),
            "output \"stride_32\" of stride 32 repeats a name or a stride, but each is to be given once",
        ),
        (
            refusal(|_, signature| signature.outputs[0].shape[1] = Dim::Fixed(4)),
            "output \"stride_32\" is f32 [batch, 4, height, width], but a grid is f32 [batch, 5 or 15, rows, columns], \
             the last two free",
        ),
        (
            refusal(|_, signature| signature.outputs[0].shape[1] = Dim::Fixed(5)),
            "output \"stride_32\" has 5 numbers a cell, but another has 15",
        ),
    ];
    for (refusal, expected) in cases {
        assert_eq!(refusal, expected);
    }
}

/// The outputs of a look at which one face was seen, in the cell of the coarse grid.
fn seen(letterbox: &Letterbox, cell: [usize; 2], numbers: &[f32]) -> Tensors {
    let mut outputs = nothing(letterbox.canvas);
    put(&mut outputs[0], cell, numbers);
    outputs
}

/// What a detector whose looks give these outputs answers, and the shapes of its further rows.
fn looked(first: Letterbox, looks: Vec<Tensors>) -> (Vec<Detection>, Vec<(usize, Billing)>) {
    let task = task();
    let context = context(first, 1.0);
    let n = 3 * (first.canvas[0] * first.canvas[1]) as usize;
    let row = task.row(Canvas { width: first.canvas[0], height: first.canvas[1] }, vec![0.0; n]).unwrap();
    let mut looks = looks.into_iter();
    let (mut outputs, mut further) = (looks.next().unwrap(), Vec::new());
    while let Some(next) = task.further(&row, &outputs, &context).unwrap() {
        further.push((next.shape, next.billing));
        outputs.extend(looks.next().expect("no further look"));
    }
    assert_eq!(looks.next(), None, "a look that nobody took");
    (detections(task.postprocess(outputs, &context).unwrap()), further)
}

#[test]
fn at_a_longer_side_the_usual_one_is_looked_at_too_and_what_both_see_is_merged() {
    let (long, usual) = (lay(1000, 500, 640), lay(1000, 500, 320));
    // The same face twice, of which the surer box stays; a large one that only the usual side sees.
    let mut small = seen(&usual, [1, 1], &[2.0, 0.5, 0.5, 0.0, 0.0]);
    put(&mut small[0], [6, 2], &[4.0, 0.5, 0.5, 4f32.ln(), 4f32.ln()]);
    let (faces, further) =
        looked(long, vec![seen(&long, [3, 3], &[3.0, 0.0, 0.0, 2f32.ln(), 2f32.ln()]), small]);
    assert_eq!(further, [(60, Billing::Upfront)]);
    let areas: Vec<Area> = faces.iter().map(|face| face.area).collect();
    assert_eq!(
        areas,
        [
            Area { x: 450.0, y: 50.0, width: 400.0, height: 400.0 },
            Area { x: 100.0, y: 100.0, width: 100.0, height: 100.0 },
        ]
    );
    let task = task();
    let then = |side| task.then(&size(side));
    assert_eq!([then(None), then(Some(320)), then(Some(640))], [None, None, Some(80)]);
}

#[test]
fn a_picture_that_is_all_face_is_found_at_a_glance_with_little_confidence() {
    let (first, long) = (lay(800, 800, 320), lay(800, 800, 640));
    let glance = Letterbox { picture: [800, 800], shown: [80, 80], canvas: [128, 128] };
    // The centre of the picture on the glance's canvas: 40 pixels, a cell and a quarter.
    let face = |logit: f32, wide: f32| seen(&glance, [1, 1], &[logit, 0.25, 0.25, wide.ln(), wide.ln()]);
    let (faces, further) = looked(first, vec![nothing(first.canvas), face(4.0, 2.0)]);
    assert_eq!(further, [(16, Billing::OnAverage)]);
    assert_eq!(faces[0].area, Area { x: 80.0, y: 80.0, width: 640.0, height: 640.0 });
    // 0.88 of the threshold of 0.5, as the temperature is 2.
    assert!((faces[0].score - 0.440_4).abs() < 1e-3, "{}", faces[0].score);
    let none = |face: Tensors| looked(first, vec![nothing(first.canvas), face]).0;
    assert_eq!(none(face(4.0, 1.5)), [], "a face with room around it is no picture that is all face");
    assert_eq!(none(face(0.7, 2.0)), [], "a glance that is not sure of what it sees");
    assert_eq!(none(nothing(glance.canvas)), []);
    let looks = vec![nothing(long.canvas), nothing(first.canvas), face(4.0, 2.0)];
    let (faces, further) = looked(long, looks);
    assert_eq!((faces.len(), further.len()), (1, 2));
    let (faces, further) = looked(first, vec![seen(&first, [1, 1], &[2.0, 0.5, 0.5, 0.0, 0.0])]);
    assert_eq!((faces.len(), further.len()), (1, 0), "where a face is found nobody glances");
}

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
    let spec: FaceDetectionSpec = section(DETECTOR, DESCRIPTOR.name).unwrap();
    assert_eq!((spec.temperature, spec.thresholds.as_slice(), spec.overlap), (1.0, [0.5].as_slice(), 0.45));
    assert_eq!((spec.sides.as_slice(), spec.input.filter), ([320, 640].as_slice(), Filter::Bilinear));
    let grids: Vec<(&str, u32)> = spec.outputs.iter().map(|grid| (grid.name.as_str(), grid.stride)).collect();
    assert_eq!(grids, [("stride_8", 8), ("stride_16", 16)]);
    assert_eq!(spec.files(), [std::path::Path::new("labels.txt")]);
}

#[test]
fn a_key_that_no_detector_has_is_refused_with_those_that_it_has() {
    for (key, typo, allowed) in [
        ("sides = [320, 640]", "size = 320", "`sides`"),
        ("color = 'rgb'", "width = 320", "`color`"),
        ("stride = 16", "step = 16", "`stride`"),
    ] {
        let error = (DESCRIPTOR.read)(&DETECTOR.replace(key, typo)).unwrap_err().to_string();
        assert!(error.contains("unknown field") && error.contains(allowed), "{error}");
    }
}
