//! Networks that others trained and exported, from the folder beside the repository. Where it is
//! missing, each test says so and proves nothing.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use super::*;

/// Reads a file of the shared models, or says that the test is skipped.
fn shared(file: &str) -> Option<Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models").join(file);
    match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            // Past the test runner's capture: what was not tested has to be seen.
            let _told = writeln!(io::stderr(), "skipped: ../shared/models/{file} cannot be read: {error}");
            None
        }
    }
}

/// Rows of noise for a network: levels of a picture where `level` is 255, samples around zero where it
/// is 1. Extents that the network leaves free are `free`.
fn noisy(engine: &TractEngine, n: usize, level: f32, free: usize) -> Tensors {
    let noisy = |port: &crate::Port| {
        let sizes = port.shape[1..].iter().map(|dim| match dim {
            Dim::Fixed(n) => *n,
            Dim::Free(_) => free,
        });
        let shape: Vec<usize> = std::iter::once(n).chain(sizes).collect();
        let noise = noise(1, shape.iter().product());
        let lowest = if level > 1.0 { 0.5 } else { 0.0 };
        let samples = noise.into_iter().map(|x| (x + lowest) * level).collect();
        Tensor::new::<f32>(shape, samples).unwrap()
    };
    engine.signature().inputs.iter().map(noisy).collect()
}

/// Says how far `found` is from `expected`: its largest difference by the largest number that is
/// expected, or by 1 where all are smaller, and the length of all differences by that of all numbers.
fn apart(found: &Tensor, expected: &Tensor) -> [f32; 2] {
    let numbers = expected.as_slice::<f32>().unwrap();
    let largest = numbers.iter().fold(1.0f32, |most, x| most.max(x.abs()));
    let length = |squares: &mut dyn Iterator<Item = f32>| squares.map(|x| x * x).sum::<f32>().sqrt();
    let mut differences = found.as_slice::<f32>().unwrap().iter().zip(numbers).map(|(a, b)| a - b);
    let by_length = length(&mut differences) / length(&mut numbers.iter().copied());
    [distance(found, expected) / largest, by_length]
}

/// Largest difference of an output in f32, as a share of its largest number. Sums in another order
/// differ by this much.
const F32_APART: f32 = 1e-5;

/// Length of the differences of an output in bf16, as a share of its own length. Networks as deep as
/// these keep about three bits of the eight: OpenVINO's bf16 is up to 0.10 away on the same ones.
const BF16_APART: f32 = 0.15;

/// Holds every form of the kernels to stock tract on a network, and answers the shapes of its outputs.
fn agreed(file: &str, inputs: impl Fn(&TractEngine) -> Tensors) -> Option<Vec<Vec<usize>>> {
    let bytes = shared(file)?;
    let stock = TractEngine::load_with(&bytes, None, None).unwrap();
    let inputs = inputs(&stock);
    let expected = stock.open().unwrap().run(inputs.clone()).unwrap();
    for form in Form::all() {
        let engine = TractEngine::load_with(&bytes, None, Some(form)).unwrap();
        let found = engine.open().unwrap().run(inputs.clone()).unwrap();
        assert_eq!(found.len(), expected.len());
        for (position, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let [by_largest, by_length] = apart(found, expected);
            let is_near = match form.precision() {
                Precision::F32 => by_largest <= F32_APART,
                Precision::Bf16 => by_length <= BF16_APART,
            };
            assert!(is_near, "{file}, {form}, output {position}: {by_largest:.1e}, {by_length:.1e}");
        }
    }
    Some(expected.iter().map(|output| output.shape().to_vec()).collect())
}

/// Holds every form to stock tract on `n` rows of noise.
fn agreed_on_noise(file: &str, n: usize, level: f32) -> Option<Vec<Vec<usize>>> {
    agreed(file, |engine| noisy(engine, n, level, 64))
}

#[test]
fn ultraface_answers_scores_and_boxes_in_every_form() {
    let Some(shapes) = agreed_on_noise("ultraface/version-RFB-320.onnx", 2, 1.0) else { return };
    assert_eq!(shapes, [vec![2, 4420, 2], vec![2, 4420, 4]]);
}

#[test]
fn mobilefacenet_answers_an_embedding_in_every_form() {
    let Some(shapes) = agreed_on_noise("mobilefacenet/mobilefacenet.onnx", 2, 1.0) else { return };
    assert_eq!(shapes, [[2, 128]]);
}

#[test]
fn yunet_answers_twelve_maps_at_a_fixed_and_at_a_free_size_in_every_form() {
    let Some(fixed) = agreed_on_noise("yunet/yunet_n_320_320.onnx", 1, 255.0) else { return };
    assert_eq!((fixed.len(), &fixed[0][..]), (12, &[1, 1600, 1][..]));
    let Some(free) = agreed_on_noise("yunet/yunet_n_dynamic.onnx", 1, 255.0) else { return };
    assert_eq!((free.len(), &free[0][..]), (12, &[1, 64, 1][..]));
}

#[test]
fn scrfd_answers_nine_maps_in_every_form() {
    let Some(shapes) = agreed_on_noise("scrfd/scrfd_500m_bnkps.onnx", 1, 1.0) else { return };
    assert_eq!(shapes.len(), 9);
}

#[test]
fn a_two_way_lstm_answers_as_its_exporter_did() {
    let (Some(network), Some(recorded)) = (shared("bidi-lstm/model.onnx"), shared("bidi-lstm/io.npz")) else {
        return;
    };
    let input = Tensor::new::<u8>(vec![2, 58], npy(&recorded, "input.npy").to_vec()).unwrap();
    let expected = npy(&recorded, "Add_26.npy");
    let expected =
        expected.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    let expected = Tensor::new::<f32>(vec![2, 58, 2], expected).unwrap();
    for form in Form::all().into_iter().map(Some).chain([None]) {
        let engine = TractEngine::load_with(&network, None, form).unwrap();
        let bound = match form.map(Form::precision) {
            Some(Precision::Bf16) => 2e-2,
            _ => 1e-4,
        };
        let far = distance(&run(&engine, input.clone()).unwrap()[0], &expected);
        assert!(far <= bound, "{form:?}: {far}");
        assert!(distance_alone(&engine, &input) <= 1e-4, "{form:?}");
    }
}

/// The elements of one array of an `.npz` archive: a zip of `.npy` files, each deflated.
fn npy(archive: &[u8], name: &str) -> Vec<u8> {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([archive[at], archive[at + 1]]));
    let u32_at = |at: usize| u16_at(at) | u16_at(at + 2) << 16;
    let header = |at: &usize| {
        archive[*at..].starts_with(b"PK\x01\x02") && archive[at + 46..].starts_with(name.as_bytes())
    };
    let entry = (0..archive.len()).find(header).unwrap();
    let (length, local) = (u32_at(entry + 20), u32_at(entry + 42));
    let start = local + 30 + u16_at(local + 26) + u16_at(local + 28);
    let file = miniz_oxide::inflate::decompress_to_vec(&archive[start..start + length]).unwrap();
    let header_length = usize::from(u16::from_le_bytes([file[8], file[9]]));
    file[10 + header_length..].to_vec()
}
