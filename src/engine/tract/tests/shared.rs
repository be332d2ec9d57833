//! Networks that others trained and exported, from the folder beside the repository. Where it is
//! missing, each test says so and proves nothing.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use super::*;

/// Reads a file of the shared models, or says that the test is skipped.
fn shared(file: &str) -> Option<Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/models").join(file);
    match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            // Past the test runner's capture: what was not tested has to be seen.
            let _told = writeln!(io::stderr(), "skipped: ../shared/models/{file} cannot be read: {error}");
            None
        }
    }
}

/// Loads `file`, runs it on `n` rows of zeros and answers the shapes of its outputs.
fn shapes_on_zeros(file: &str, n: usize) -> Option<Vec<Vec<usize>>> {
    let engine = load(&shared(file)?);
    let zeros = |port: &crate::engine::Port| {
        let sizes = port.shape[1..].iter().map(|dim| match dim {
            Dim::Fixed(n) => *n,
            Dim::Free(_) => 64,
        });
        let shape: Vec<usize> = std::iter::once(n).chain(sizes).collect();
        let n_elements = shape.iter().product();
        Tensor::new(shape, Data::F32(vec![0.0; n_elements])).unwrap()
    };
    let batch = engine.signature().inputs.iter().map(zeros).collect();
    let outputs = engine.open().unwrap().run(batch).unwrap();
    assert!(outputs.iter().all(|output| output.as_f32().unwrap().iter().all(|x| x.is_finite())));
    Some(outputs.iter().map(|output| output.shape().to_vec()).collect())
}

#[test]
fn ultraface_answers_scores_and_boxes() {
    let Some(shapes) = shapes_on_zeros("ultraface/version-RFB-320.onnx", 2) else { return };
    assert_eq!(shapes, [vec![2, 4420, 2], vec![2, 4420, 4]]);
}

#[test]
fn mobilefacenet_answers_an_embedding() {
    let Some(shapes) = shapes_on_zeros("mobilefacenet/mobilefacenet.onnx", 2) else { return };
    assert_eq!(shapes, [[2, 128]]);
}

#[test]
fn yunet_answers_twelve_maps_at_a_fixed_and_at_a_free_size() {
    let Some(fixed) = shapes_on_zeros("yunet/yunet_n_320_320.onnx", 1) else { return };
    assert_eq!((fixed.len(), &fixed[0][..]), (12, &[1, 1600, 1][..]));
    let Some(free) = shapes_on_zeros("yunet/yunet_n_dynamic.onnx", 1) else { return };
    assert_eq!((free.len(), &free[0][..]), (12, &[1, 64, 1][..]));
}

#[test]
fn a_two_way_lstm_answers_as_its_exporter_did() {
    let (Some(network), Some(recorded)) = (shared("bidi-lstm/model.onnx"), shared("bidi-lstm/io.npz")) else {
        return;
    };
    let input = Tensor::new(vec![2, 58], Data::U8(npy(&recorded, "input.npy").to_vec())).unwrap();
    let expected = npy(&recorded, "Add_26.npy");
    let expected =
        expected.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    let expected = Tensor::new(vec![2, 58, 2], Data::F32(expected)).unwrap();
    let engine = load(&network);
    assert!(distance(&run(&engine, input.clone()).unwrap()[0], &expected) <= 1e-4);
    assert!(distance_alone(&engine, &input) <= 1e-4);
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
