//! Convolutions of a network that [`kernels::conv`](lepton_kernels::conv) can run, read from
//! tract's operators.
//!
//! Invariant: a convolution that is not understood in full is refused, with the reason.

mod unshuffled;

use std::sync::Arc;

use tract_onnx::{
    prelude::{DatumType, OutletId, TVec, Tensor, TypedModel, TypedNode},
    tract_core::{
        internal::DimLike,
        ops::{
            cnn::{Conv as StockConv, KernelFormat, PaddingSpec},
            nn::DataFormat,
        },
    },
};

use lepton_kernels::{chain::Extent, conv::Shape};

/// Fewest output channels: below, most of a register would be padding.
const FEWEST_OUTPUTS: usize = 8;

/// A convolution that the kernel can run.
pub(super) struct Found {
    pub(super) shape: Shape,
    /// What it convolves.
    pub(super) pictures: OutletId,
    pub(super) extent: Extent,
    pub(super) weights: Arc<Tensor>,
    pub(super) bias: Arc<Tensor>,
}

/// Says why no kernel runs a node.
pub(super) fn why_not(model: &TypedModel, node: &TypedNode) -> &'static str {
    match understood(model, node) {
        Some(Err(Refusal(reason))) => reason,
        Some(Ok(_)) => "the kernels have it, but not with what is around it",
        None => "there is no kernel for it",
    }
}

/// Why the kernel does not run a convolution.
pub(super) struct Refusal(&'static str);

/// Reads a node, where it is a convolution: what it computes, or why the kernel does not.
pub(super) fn understood(model: &TypedModel, node: &TypedNode) -> Option<Result<Found, Refusal>> {
    let stock = node.op_as::<StockConv>()?;
    Some(read(model, node, stock))
}

fn read(model: &TypedModel, node: &TypedNode, stock: &StockConv) -> Result<Found, Refusal> {
    let pool = &stock.pool_spec;
    let constant = |slot: usize| {
        let fact = model.outlet_fact(*node.inputs.get(slot)?).ok()?;
        fact.konst.clone().filter(|tensor| tensor.datum_type() == DatumType::F32)
    };
    let input = model.outlet_fact(node.inputs[0]).map_err(|_| Refusal("its input is not known"))?;
    if stock.group != 1 {
        return Err(Refusal("its channels are in groups"));
    }
    if stock.q_params.is_some() || input.datum_type != DatumType::F32 {
        return Err(Refusal("its numbers are not f32"));
    }
    if pool.dilations.iter().flatten().any(|dilation| *dilation != 1) {
        return Err(Refusal("its kernel is dilated"));
    }
    let known = pool.data_format == DataFormat::NCHW && stock.kernel_fmt == KernelFormat::OIHW;
    let (true, &[height, width]) = (known, pool.kernel_shape.as_slice()) else {
        return Err(Refusal("it is not over pictures with their channels first"));
    };
    let padding = match &pool.padding {
        PaddingSpec::Valid => [[0; 2]; 2],
        PaddingSpec::Explicit(before, after) => {
            let side = |side: &TVec<usize>| side.as_slice().try_into().ok();
            let (Some(before), Some(after)) = (side(before), side(after)) else {
                return Err(Refusal("its padding is not that of a picture"));
            };
            [before, after]
        }
        _ => return Err(Refusal("its padding depends on its input")),
    };
    let strides = match pool.strides.as_deref() {
        None => [1, 1],
        Some(&[down, right]) => [down, right],
        Some(_) => return Err(Refusal("its strides are not those of a picture")),
    };
    let Some(&[n_inputs, rows, columns]) = row_extents(model, node.inputs[0]).as_deref() else {
        return Err(Refusal("its picture has no fixed size"));
    };
    let (Some(weights), Some(bias)) = (constant(1), constant(2)) else {
        return Err(Refusal("its weights are not constants"));
    };
    let n_outputs = pool.output_channels;
    if n_outputs < FEWEST_OUTPUTS {
        return Err(Refusal("it has few output channels"));
    }
    let shape = Shape { n_inputs, n_outputs, kernel: [height, width], strides, padding };
    let is_wide = shape.border().iter().zip(shape.kernel).any(|(border, side)| *border > side);
    if is_wide || shape.extent([rows, columns]).is_none() {
        return Err(Refusal("its padding is wider than its kernel"));
    }
    let extent = Extent { n_channels: n_inputs, height: rows, width: columns };
    Ok(unshuffled::before(model, Found { shape, pictures: node.inputs[0], extent, weights, bias }))
}

/// The extents of a value behind its rows; nothing where one is not known.
pub(super) fn row_extents(model: &TypedModel, outlet: OutletId) -> Option<TVec<usize>> {
    let fact = model.outlet_fact(outlet).ok()?;
    fact.shape.iter().skip(1).map(|dim| dim.to_usize().ok()).collect()
}
