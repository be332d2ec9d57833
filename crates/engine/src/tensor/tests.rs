//! What tensors promise: shapes that fit, views without copies, no type taken for another.

use proptest::prelude::*;

use super::*;

#[test]
fn a_shape_of_another_size_is_refused_with_both_numbers() {
    let error = Tensor::new([2, 3], vec![0.0f32; 5]).unwrap_err();
    assert_eq!(error.to_string(), "shape [2, 3] holds 6 elements, but 5 were given");
    let error = Tensor::from_bytes(DType::F32, [2, 3], Bytes::from(vec![0; 20])).unwrap_err();
    assert_eq!(error.to_string(), "f32 [2, 3] takes 24 bytes, but 20 were given");
    let error = Tensor::of_strings([2], &["one"]).unwrap_err();
    assert_eq!(error.to_string(), "shape [2] holds 2 elements, but 1 were given");
}

#[test]
fn a_shape_whose_product_overflows_is_refused() {
    assert!(Tensor::new([usize::MAX, 2], Vec::<u8>::new()).is_err());
    assert!(Tensor::from_bytes(DType::F64, [usize::MAX], Bytes::new()).is_err());
}

#[test]
fn a_tensor_has_no_axis_to_eight() {
    assert_eq!(Tensor::new([0usize; 0], vec![7i32]).unwrap().as_slice::<i32>(), Ok(&[7][..]));
    let row = Tensor::new([1; MAX_RANK], vec![7i32]).unwrap();
    assert_eq!(row.shape(), [1; MAX_RANK]);
    assert_eq!(Tensor::new([1; 9], vec![7i32]), Err(TensorError::Rank { rank: 9 }));
    assert_eq!(Tensor::stack([&row].into_iter()), Err(TensorError::Rank { rank: 9 }));
}

#[test]
fn rows_of_different_type_do_not_stack() {
    let a = Tensor::new([1], vec![1.0f32]).unwrap();
    let b = Tensor::new([1], vec![1i32]).unwrap();
    assert!(matches!(Tensor::stack([&a, &b].into_iter()), Err(TensorError::Ragged { .. })));
    assert!(matches!(Tensor::concat([&a, &b].into_iter()), Err(TensorError::Ragged { .. })));
    assert_eq!(Tensor::stack([].into_iter()), Err(TensorError::NoRows));
}

#[test]
fn elements_are_not_taken_for_those_of_another_type() {
    let bytes = Bytes::from(vec![0; 16]);
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.size().is_some()) {
        let n = 16 / dtype.size().unwrap();
        let tensor = Tensor::from_bytes(dtype, [n], bytes.clone()).unwrap();
        let views = [
            tensor.as_slice::<bool>().is_ok(),
            tensor.as_slice::<u8>().is_ok(),
            tensor.as_slice::<u16>().is_ok(),
            tensor.as_slice::<u32>().is_ok(),
            tensor.as_slice::<u64>().is_ok(),
            tensor.as_slice::<i8>().is_ok(),
            tensor.as_slice::<i16>().is_ok(),
            tensor.as_slice::<i32>().is_ok(),
            tensor.as_slice::<i64>().is_ok(),
            tensor.as_slice::<half::f16>().is_ok(),
            tensor.as_slice::<half::bf16>().is_ok(),
            tensor.as_slice::<f32>().is_ok(),
            tensor.as_slice::<f64>().is_ok(),
        ];
        assert_eq!(views.iter().filter(|is_read| **is_read).count(), 1, "{dtype}");
        let position = DType::ALL.iter().position(|other| *other == dtype).unwrap();
        assert!(views[position], "{dtype}");
    }
}

#[test]
fn the_protocols_names_name_every_type() {
    let names: Vec<&str> = DType::ALL.into_iter().map(DType::protocol_name).collect();
    let expected = "BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 BF16 FP32 FP64 BYTES";
    assert_eq!(names.join(" "), expected);
    assert!(
        DType::ALL.into_iter().all(|dtype| DType::from_protocol_name(dtype.protocol_name()) == Some(dtype))
    );
    assert_eq!(DType::from_protocol_name("fp32"), None);
}

#[test]
fn a_byte_that_is_no_bool_is_refused() {
    let of = |bytes: &'static [u8]| Tensor::from_bytes(DType::Bool, [2], Bytes::from_static(bytes));
    assert_eq!(of(&[0, 1]).unwrap().as_slice::<bool>(), Ok(&[false, true][..]));
    assert_eq!(of(&[0, 2]), Err(TensorError::Bool));
}

#[test]
fn bytes_that_are_not_aligned_are_copied_and_those_that_are_stay_where_they_are() {
    let numbers = Tensor::new([5], vec![0.0f64, 1.5, -2.0, 3.0, 4.0]).unwrap();
    let all = numbers.bytes().clone();
    let rest = Tensor::from_bytes(DType::F64, [4], all.slice(8..)).unwrap();
    assert_eq!(rest.bytes().as_ptr(), all[8..].as_ptr());
    let shifted: Vec<u8> = std::iter::once(0).chain(all.iter().copied()).collect();
    let shifted = Bytes::from(shifted);
    // One of the two is not aligned, wherever the allocator put them.
    for start in [0, 1] {
        let bytes = if start == 0 { Bytes::from(shifted[1..].to_vec()) } else { shifted.slice(1..) };
        assert_eq!(Tensor::from_bytes(DType::F64, [5], bytes).unwrap(), numbers);
    }
}

#[test]
fn rows_share_the_memory_of_the_tensor_that_they_are_split_from() {
    let numbers: Vec<f32> = (0..6).map(|i| i as f32).collect();
    let at = numbers.as_ptr().addr();
    let tensor = Tensor::new([3, 2], numbers).unwrap();
    let places: Vec<usize> =
        tensor.split(3).unwrap().iter().map(|row| row.bytes().as_ptr().addr() - at).collect();
    assert_eq!(places, [0, 8, 16]);
    assert_eq!(tensor.rows(1..3).unwrap().bytes().as_ptr().addr() - at, 8);
    let row = Tensor::new([2], vec![1.0f32, 2.0]).unwrap();
    assert_eq!(Tensor::stack([&row].into_iter()).unwrap().bytes().as_ptr(), row.bytes().as_ptr());
}

#[test]
fn strings_of_any_length_go_in_and_come_out() {
    let long = vec![7u8; 70_000];
    let elements: [&[u8]; 4] = [b"", b"caf\xc3\xa9", &long, b"\0\xff"];
    let tensor = Tensor::of_strings([2, 2], &elements).unwrap();
    assert_eq!(tensor.strings().unwrap().collect::<Vec<_>>(), elements);
    assert_eq!(Tensor::from_bytes(DType::Bytes, [2, 2], tensor.bytes().clone()).unwrap(), tensor);
    let rows = tensor.split(2).unwrap();
    assert_eq!(rows[1].strings().unwrap().collect::<Vec<_>>(), elements[2..]);
    assert_eq!(Tensor::stack(rows.iter()).unwrap(), tensor);
    assert_eq!(tensor.rows(1..2).unwrap().strings().unwrap().count(), 2);
    assert!(matches!(tensor.as_slice::<u8>(), Err(TensorError::Type { got: DType::Bytes, .. })));
}

#[test]
fn strings_that_are_cut_off_are_refused() {
    let of = |bytes: &'static [u8]| Tensor::from_bytes(DType::Bytes, [1], Bytes::from_static(bytes));
    assert!(of(b"\x02\0\0\0ab").is_ok());
    for cut in [&b"\x03\0\0\0ab"[..], b"\x02\0\0", b"\x02\0\0\0ab\0", b"\xff\xff\xff\xff"] {
        assert!(matches!(of(cut), Err(TensorError::Cut { .. })), "{cut:?}");
    }
    assert!(matches!(of(b"\0\0\0\0\0\0\0\0"), Err(TensorError::Count { got: 2, .. })));
}

proptest! {
    #[test]
    fn split_undoes_stack(shape in prop::collection::vec(0usize..4, 0..4), n_rows in 1usize..6) {
        let n: usize = shape.iter().product();
        let rows: Vec<Tensor> = (0..n_rows)
            .map(|r| Tensor::new(&shape, (0..n).map(|i| (r * n + i) as i64).collect()).unwrap())
            .collect();
        let stacked = Tensor::stack(rows.iter()).unwrap();
        prop_assert_eq!(stacked.shape()[0], n_rows);
        prop_assert_eq!(stacked.split(n_rows).unwrap(), rows);
        prop_assert!(stacked.split(n_rows + 1).is_err());
    }

    #[test]
    fn concat_undoes_rows(n_rows in 1usize..6, n_first in 0usize..6, n_each in 0usize..4) {
        let n_first = n_first.min(n_rows);
        let numbers = (0..n_rows * n_each).map(|i| i as u16).collect();
        let tensor = Tensor::new([n_rows, n_each], numbers).unwrap();
        let parts = [tensor.rows(0..n_first).unwrap(), tensor.rows(n_first..n_rows).unwrap()];
        prop_assert_eq!(Tensor::concat(parts.iter()).unwrap(), tensor.clone());
        prop_assert!(tensor.rows(0..n_rows + 1).is_err());
    }
}
