//! Convolutions of a network, run by the kernel of [`kernels::conv`](crate::engine::kernels::conv).
//!
//! Invariant: a value in the kernel's layout is read by operators of this room only. What comes in is
//! laid out once, a chain of convolutions hands its maps on as they lie, and what others read is
//! gathered again. A convolution that is not understood in full stays as it is.

use std::sync::Arc;

use tract_onnx::{
    prelude::{
        DatumType, IntoTValue, OutletId, TDim, TValue, TVec, Tensor, ToDim, TractResult, TypedFact,
        TypedModel, TypedModelPatch, TypedNode, tvec,
    },
    tract_core::{
        internal::{Cost, EvalContext, EvalOp, Op, StaticName, TypedOp, Validation},
        ops::{
            binary::{BinMiniOp, TypedBinOp},
            cnn::{Conv as StockConv, KernelFormat, PaddingSpec},
            math::{Add, Max},
            nn::{DataFormat, Reduce, Reducer},
        },
    },
};

use super::taken::Packed;
use crate::engine::kernels::{
    conv::{Activation, Conv, Run, Shape},
    maps::Layout,
};

/// Fewest output channels: below, most of a register would be padding.
const FEWEST_OUTPUTS: usize = 8;

/// Products for each number of the answer from which a convolution is worth laying its input out and
/// gathering its answer, where no neighbour shares the layout.
const WORTH_MOVING: usize = 512;

/// Hands the convolutions of a typed network, its constants known, to the kernel.
pub(super) fn take(model: &mut TypedModel, packed: &Packed) -> TractResult<()> {
    let order = model.eval_order()?;
    let convs = order.iter().filter_map(|id| understood(model, model.node(*id))?.ok());
    let Some(border) = convs.map(|found| found.shape.border()).max() else { return Ok(()) };
    for id in order {
        let node = model.node(id);
        let patch = if let Some(Ok(found)) = understood(model, node) {
            replaced(model, node, found, border, packed)?
        } else {
            summed(model, node)?
        };
        if let Some(patch) = patch {
            patch.apply(model)?;
        }
    }
    Ok(())
}

/// A convolution that the kernel can run.
struct Found {
    shape: Shape,
    picture: [usize; 2],
    weights: Arc<Tensor>,
    bias: Arc<Tensor>,
}

/// Says why no kernel runs a node.
pub(super) fn why_not(model: &TypedModel, node: &TypedNode) -> &'static str {
    match understood(model, node) {
        Some(Err(Refusal(reason))) => reason,
        Some(Ok(_)) => "laying its pictures out for it alone would cost more than it gains",
        None => "there is no kernel for it",
    }
}

/// Why the kernel does not run a convolution.
struct Refusal(&'static str);

/// Reads a node, where it is a convolution: what it computes, or why the kernel does not.
fn understood(model: &TypedModel, node: &TypedNode) -> Option<Result<Found, Refusal>> {
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
    let extents: Option<Vec<usize>> =
        input.shape.iter().skip(1).map(|dim| dim.to_i64().ok()?.try_into().ok()).collect();
    let Some(&[n_inputs, rows, columns]) = extents.as_deref() else {
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
    if shape.border() > height.max(width) || shape.extent([rows, columns]).is_none() {
        return Err(Refusal("its padding is wider than its kernel"));
    }
    Ok(Found { shape, picture: [rows, columns], weights, bias })
}

/// The patch that puts the kernel in the place of a convolution, and of the addition and the ReLU
/// behind it.
fn replaced(
    model: &TypedModel,
    node: &TypedNode,
    found: Found,
    border: usize,
    packed: &Packed,
) -> TractResult<Option<TypedModelPatch>> {
    let Found { shape, picture, weights, bias } = found;
    let from_maps = maps_of(model, node.inputs[0]);
    let linked = from_maps.is_some() || leads_to_conv(model, node, 3);
    if !linked && shape.kernel[0] * shape.kernel[1] * shape.n_inputs < WORTH_MOVING {
        return Ok(None);
    }
    let Some(conv) = packed.conv(&node.name, shape, &weights, &bias)? else { return Ok(None) };
    let Some(to) = conv.answer(picture, border) else { return Ok(None) };
    let mut last = node;
    let mut summand = None;
    let mut activation = Activation::Linear;
    if let Some(sum) = only_reader(model, last)?.filter(|next| is_binary::<Add>(next)) {
        let other = sum.inputs.iter().copied().find(|input| input.node != last.id);
        if let Some((maps, layout)) = other.and_then(|other| maps_of(model, other))
            && layout == to
        {
            (summand, last) = (Some(maps), sum);
        }
    }
    if let Some(relu) = only_reader(model, last)?.filter(|next| is_binary::<Max>(next))
        && relu.inputs.iter().any(|input| is_zero(model, *input))
    {
        (activation, last) = (Activation::Relu, relu);
    }

    let mut patch = TypedModelPatch::default();
    let (input, from) = match from_maps {
        Some((maps, layout)) => (patch.tap_model(model, maps)?, layout),
        None => {
            let [height, width] = picture;
            let n_channels = shape.n_inputs;
            let layout = Layout { n_channels, height, width, border: shape.border(), pixel: n_channels };
            let pictures = patch.tap_model(model, node.inputs[0])?;
            (patch.wire_node(format!("{}.lay_out", node.name), LayOut { layout }, &[pictures])?[0], layout)
        }
    };
    let mut inputs = tvec!(input);
    if let Some(summand) = summand {
        inputs.push(patch.tap_model(model, summand)?);
    }
    let maps = patch.wire_node(&node.name, ConvOp { conv, from, to, activation }, &inputs)?;
    let pictures = patch.wire_node(format!("{}.gather", last.name), Gather { layout: to }, &maps)?[0];
    patch.shunt_outside(model, last.id.into(), pictures)?;
    Ok(Some(patch))
}

/// The patch that sums maps as they lie, where a node sums pictures gathered of them.
fn summed(model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some(reduce) = node.op_as::<Reduce>() else { return Ok(None) };
    let over_pixels = reduce.reducer == Reducer::Sum && reduce.axes.as_slice() == [2, 3];
    let Some((maps, layout)) = maps_of(model, node.inputs[0]).filter(|_| over_pixels) else {
        return Ok(None);
    };
    let mut patch = TypedModelPatch::default();
    let maps = patch.tap_model(model, maps)?;
    let sums = patch.wire_node(&node.name, Sum { layout }, &[maps])?[0];
    patch.shunt_outside(model, node.id.into(), sums)?;
    Ok(Some(patch))
}

/// The maps that pictures are gathered of.
fn maps_of(model: &TypedModel, pictures: OutletId) -> Option<(OutletId, Layout)> {
    let node = model.node(pictures.node);
    node.op_as::<Gather>().map(|gather| (node.inputs[0], gather.layout))
}

/// Says whether a convolution that the kernel runs reads what `node` makes, at most `depth` further on.
fn leads_to_conv(model: &TypedModel, node: &TypedNode, depth: usize) -> bool {
    let readers =
        node.outputs.iter().flat_map(|output| &output.successors).map(|reader| model.node(reader.node));
    readers.into_iter().any(|reader| {
        matches!(understood(model, reader), Some(Ok(_)))
            || depth > 0
                && (is_binary::<Add>(reader) || is_binary::<Max>(reader))
                && leads_to_conv(model, reader, depth - 1)
    })
}

fn only_reader<'a>(model: &'a TypedModel, node: &TypedNode) -> TractResult<Option<&'a TypedNode>> {
    if model.outputs.contains(&node.id.into()) { Ok(None) } else { model.single_succ(node.id) }
}

fn is_binary<O: BinMiniOp>(node: &TypedNode) -> bool {
    node.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<O>() && op.1.is_none())
}

fn is_zero(model: &TypedModel, outlet: OutletId) -> bool {
    let constant = model.outlet_fact(outlet).ok().and_then(|fact| fact.konst.clone());
    constant.is_some_and(|tensor| tensor.len() == 1 && tensor.cast_to_scalar::<f32>().is_ok_and(|x| x == 0.0))
}

/// Pictures [n, channels, height, width] to maps [n, numbers of a picture].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LayOut {
    layout: Layout,
}

/// Maps to pictures.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Gather {
    layout: Layout,
}

/// Maps to the sums of their channels, [n, channels, 1, 1].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Sum {
    layout: Layout,
}

/// Maps, and maps to add to the answer, to maps.
#[derive(Debug, Clone)]
struct ConvOp {
    conv: Arc<Conv>,
    from: Layout,
    to: Layout,
    activation: Activation,
}

impl PartialEq for ConvOp {
    fn eq(&self, other: &Self) -> bool {
        let same = |op: &Self| (op.from, op.to, op.activation);
        Arc::ptr_eq(&self.conv, &other.conv) && same(self) == same(other)
    }
}

impl Eq for ConvOp {}

/// What an operator of this room does to numbers: the extents of its answer behind the rows, and the
/// answer itself, zero before.
trait Rowwise: TypedOp + Clone + PartialEq + Eq {
    const NAME: &'static str;
    fn extents(&self) -> TVec<usize>;
    fn run(&self, inputs: &[&[f32]], answer: &mut [f32]);
    /// Products of each row.
    fn products(&self) -> usize {
        0
    }
}

impl Rowwise for LayOut {
    const NAME: &'static str = "LeptonLayOut";
    fn extents(&self) -> TVec<usize> {
        tvec!(self.layout.picture())
    }
    fn run(&self, inputs: &[&[f32]], answer: &mut [f32]) {
        self.layout.lay_out(inputs[0], answer);
    }
}

impl Rowwise for Gather {
    const NAME: &'static str = "LeptonGather";
    fn extents(&self) -> TVec<usize> {
        tvec!(self.layout.n_channels, self.layout.height, self.layout.width)
    }
    fn run(&self, inputs: &[&[f32]], answer: &mut [f32]) {
        self.layout.gather(inputs[0], answer);
    }
}

impl Rowwise for Sum {
    const NAME: &'static str = "LeptonSum";
    fn extents(&self) -> TVec<usize> {
        tvec!(self.layout.n_channels, 1, 1)
    }
    fn run(&self, inputs: &[&[f32]], answer: &mut [f32]) {
        self.layout.sum(inputs[0], answer);
    }
}

impl Rowwise for ConvOp {
    const NAME: &'static str = "LeptonConv";
    fn extents(&self) -> TVec<usize> {
        tvec!(self.to.picture())
    }
    fn run(&self, inputs: &[&[f32]], answer: &mut [f32]) {
        self.conv.run(Run {
            input: inputs[0],
            input_layout: self.from,
            summand: inputs.get(1).copied(),
            activation: self.activation,
            output: answer,
            output_layout: self.to,
        });
    }
    fn products(&self) -> usize {
        let Shape { n_inputs, n_outputs, kernel, .. } = self.conv.shape();
        self.to.height * self.to.width * n_inputs * n_outputs * kernel[0] * kernel[1]
    }
}

fn evaluated<O: Rowwise>(op: &O, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
    let shape: TVec<usize> = inputs[0].shape().iter().take(1).copied().chain(op.extents()).collect();
    let mut answer = Tensor::zero::<f32>(&shape)?;
    {
        let views: Vec<_> =
            inputs.iter().map(|input| input.try_as_plain_ram()).collect::<TractResult<_>>()?;
        let slices: Vec<&[f32]> =
            views.iter().map(|view| view.as_slice::<f32>()).collect::<TractResult<_>>()?;
        let mut answer = answer.try_as_plain_ram_mut()?;
        op.run(&slices, answer.as_slice_mut::<f32>()?);
    }
    Ok(tvec!(answer.into_tvalue()))
}

macro_rules! operators {
    ($($op:ty),*) => {$(
        impl Op for $op {
            fn name(&self) -> StaticName {
                Self::NAME.into()
            }

            fn validation(&self) -> Validation {
                Validation::Rounding
            }

            fn as_typed(&self) -> Option<&dyn TypedOp> {
                Some(self)
            }
        }

        impl EvalOp for $op {
            fn eval_out_of_plan(&self, inputs: TVec<TValue>) -> TractResult<Option<TVec<TValue>>> {
                Ok(Some(evaluated(self, &inputs)?))
            }

            fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
                evaluated(self, &inputs)
            }
        }

        impl TypedOp for $op {
            fn as_op(&self) -> &dyn Op {
                self
            }

            fn as_op_mut(&mut self) -> &mut dyn Op {
                self
            }

            fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
                let rows = inputs[0].shape.iter().take(1).cloned();
                let shape: TVec<TDim> = rows.chain(self.extents().iter().map(|n| n.to_dim())).collect();
                Ok(tvec!(TypedFact::dt_shape(DatumType::F32, shape)))
            }

            fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
                Ok(tvec!((Cost::FMA(DatumType::F32), inputs[0].shape[0].clone() * self.products())))
            }
        }
    )*};
}

operators!(LayOut, Gather, Sum, ConvOp);
