//! Nodes that a region can have: what each does, read from tract's operators.
//!
//! Invariant: all numbers of a member are f32, and its answer has the rows of its inputs as leading
//! axis, each made of the same row of them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tract_onnx::{
    prelude::{DatumType, OutletId, Tensor, TractResult, TypedModel, TypedNode},
    tract_core::{
        internal::{Axis, AxisOp},
        ops::{
            binary::{BinMiniOp, TypedBinOp},
            einsum::EinSum,
            math::{Add, Div, Max, Mul},
            nn::{Reduce, Reducer},
        },
    },
};

use super::super::{
    conv::{self, row_extents},
    taken::Packed,
};
use lepton_kernels::{Form, chain::Extent, conv::Shape};

/// A node that a region can have.
pub(super) struct Member {
    pub(super) node: usize,
    pub(super) does: Does,
    /// How often the way to it leaves what regions can do and comes back, at most. Members of one level
    /// can be in one region: a way out of it leads to higher levels only.
    pub(super) level: usize,
    makes: Makes,
}

/// What a member answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Makes {
    /// Pictures, [n, channels, height, width].
    Maps,
    /// A vector for each picture, whatever axes of 1 it has.
    Rows,
}

pub(super) enum Does {
    Conv(conv::Found),
    Add([OutletId; 2]),
    Relu(OutletId),
    Sum {
        of: OutletId,
        factor: f32,
    },
    Dense(Dense),
    /// What its input is: in another shape, or with something done to it that the input's member does.
    Same(OutletId),
}

/// A product of vectors with a matrix, and a bias.
pub(super) struct Dense {
    of: OutletId,
    shape: Shape,
    /// [outputs, inputs].
    weights: Arc<Tensor>,
    bias: Arc<Tensor>,
}

/// A convolution as it is packed. That of vectors is over one pixel.
pub(super) struct Convolution<'a> {
    pub(super) shape: Shape,
    pub(super) extent: Extent,
    pub(super) weights: &'a Tensor,
    pub(super) bias: &'a Tensor,
}

impl Does {
    /// What it reads of pictures and vectors.
    pub(super) fn inputs(&self) -> impl Iterator<Item = OutletId> + use<> {
        let inputs = match self {
            Self::Conv(found) => [Some(found.pictures), None],
            Self::Add([one, other]) => [Some(*one), Some(*other)],
            Self::Relu(of) | Self::Sum { of, .. } | Self::Same(of) => [Some(*of), None],
            Self::Dense(dense) => [Some(dense.of), None],
        };
        inputs.into_iter().flatten()
    }

    /// The convolution that does it, and the form that it is packed for.
    pub(super) fn convolution(&self, packed: &Packed) -> Option<(Form, Convolution<'_>)> {
        match self {
            Self::Conv(conv::Found { shape, extent, weights, bias, .. }) => {
                let (shape, extent) = (*shape, *extent);
                Some((packed.form(), Convolution { shape, extent, weights, bias }))
            }
            Self::Dense(Dense { shape, weights, bias, .. }) => {
                let extent = Extent { n_channels: shape.n_inputs, height: 1, width: 1 };
                Some((packed.form_of_rows()?, Convolution { shape: *shape, extent, weights, bias }))
            }
            _ => None,
        }
    }
}

/// The members of a network, in the order of evaluation.
pub(super) fn members(model: &TypedModel) -> TractResult<Vec<Member>> {
    let mut found = Found::default();
    // How often the way to each node comes back to regions.
    let mut levels: HashMap<usize, usize> = HashMap::new();
    let level = |levels: &HashMap<usize, usize>, outlet: &OutletId| levels.get(&outlet.node).copied();
    for id in model.eval_order()? {
        let node = model.node(id);
        match found.read(model, node) {
            Some((does, makes)) => {
                let enters = |outlet: OutletId| {
                    let level = level(&levels, &outlet).unwrap_or(0);
                    if found.by_node.contains_key(&outlet.node) { level } else { level + 1 }
                };
                let level = does.inputs().map(enters).max().unwrap_or(0);
                levels.insert(id, level);
                found.by_node.insert(id, found.members.len());
                found.members.push(Member { node: id, does, level, makes });
            }
            None => {
                let level = node.inputs.iter().filter_map(|input| level(&levels, input)).max().unwrap_or(0);
                levels.insert(id, level);
            }
        }
    }
    Ok(found.members)
}

/// The members found so far.
#[derive(Default)]
struct Found {
    members: Vec<Member>,
    by_node: HashMap<usize, usize>,
    /// Nodes whose work the member before them does.
    absorbed: HashSet<usize>,
}

impl Found {
    fn member(&self, outlet: OutletId) -> Option<&Member> {
        self.by_node.get(&outlet.node).map(|at| &self.members[*at])
    }

    fn makes(&self, outlet: OutletId) -> Option<Makes> {
        self.member(outlet).map(|member| member.makes)
    }

    /// What a node does and makes, where a program can do it.
    fn read(&mut self, model: &TypedModel, node: &TypedNode) -> Option<(Does, Makes)> {
        if let Some(found) = conv::understood(model, node) {
            return self.convolution(found.ok()?);
        }
        if node.outputs.len() != 1 || model.outlet_fact(node.id.into()).ok()?.datum_type != DatumType::F32 {
            return None;
        }
        if self.absorbed.contains(&node.id) {
            let of = *node.inputs.iter().find(|input| self.member(**input).is_some())?;
            return Some((Does::Same(of), self.makes(of)?));
        }
        if is_binary::<Add>(node) {
            self.sum_of_two(model, node)
        } else if is_binary::<Max>(node) {
            let (of, _) = beside(model, node, |constant| constant == 0.0)?;
            Some((Does::Relu(of), self.makes(of)?))
        } else if let Some(reduce) = node.op_as::<Reduce>() {
            self.sum_over_pixels(model, node, reduce)
        } else if let Some(change) = node.op_as::<AxisOp>() {
            self.reshaped(model, node, change)
        } else if let Some(product) = node.op_as::<EinSum>() {
            self.dense(model, node, product)
        } else {
            None
        }
    }

    fn convolution(&self, found: conv::Found) -> Option<(Does, Makes)> {
        if self.makes(found.pictures) != Some(Makes::Rows) {
            return Some((Does::Conv(found), Makes::Maps));
        }
        let conv::Found { shape, pictures: of, weights, bias, .. } = found;
        let dense = Dense { of, shape, weights, bias };
        (shape == over_one_pixel(shape.n_inputs, shape.n_outputs))
            .then_some((Does::Dense(dense), Makes::Rows))
    }

    fn sum_of_two(&self, model: &TypedModel, node: &TypedNode) -> Option<(Does, Makes)> {
        let &[one, other] = node.inputs.as_slice() else { return None };
        let makes = self.makes(one).or(self.makes(other))?;
        // What no member makes comes in as pictures.
        let fits = |outlet| self.makes(outlet).unwrap_or(Makes::Maps) == makes;
        let facts = [model.outlet_fact(one).ok()?, model.outlet_fact(other).ok()?];
        let same = facts.iter().all(|fact| fact.datum_type == DatumType::F32 && fact.konst.is_none())
            && facts[0].shape == facts[1].shape
            && row_extents(model, one).is_some();
        (same && fits(one) && fits(other)).then_some((Does::Add([one, other]), makes))
    }

    fn sum_over_pixels(
        &mut self,
        model: &TypedModel,
        node: &TypedNode,
        reduce: &Reduce,
    ) -> Option<(Does, Makes)> {
        let of = node.inputs[0];
        let over_pixels = reduce.reducer == Reducer::Sum && reduce.axes.as_slice() == [2, 3];
        if !over_pixels || self.makes(of) != Some(Makes::Maps) {
            return None;
        }
        let next = only_reader(model, node);
        let scaled = next.and_then(|next| Some((next, factor(model, next)?)));
        let factor = scaled.map_or(1.0, |(next, factor)| {
            self.absorbed.insert(next.id);
            factor
        });
        Some((Does::Sum { of, factor }, Makes::Rows))
    }

    /// A change of the axes of vectors that leaves their numbers in their order.
    fn reshaped(&self, model: &TypedModel, node: &TypedNode, change: &AxisOp) -> Option<(Does, Makes)> {
        let of = node.inputs[0];
        let behind_rows = match change {
            AxisOp::Add(at) | AxisOp::Rm(at) | AxisOp::Reshape(at, ..) => *at > 0,
            AxisOp::Move(from, to) => *from > 0 && *to > 0,
        };
        let (before, after) = (row_extents(model, of)?, row_extents(model, node.id.into())?);
        let n = |extents: &[usize]| extents.iter().product::<usize>();
        // With one axis that is not 1, every order is the same.
        let is_vector = |extents: &[usize]| extents.contains(&n(extents));
        let same = behind_rows && n(&before) == n(&after) && is_vector(&before) && is_vector(&after);
        (same && self.makes(of)? == Makes::Rows).then_some((Does::Same(of), Makes::Rows))
    }

    fn dense(&mut self, model: &TypedModel, node: &TypedNode, product: &EinSum) -> Option<(Does, Makes)> {
        let &[of, matrix] = node.inputs.as_slice() else { return None };
        if self.makes(of)? != Makes::Rows || product.q_params.is_some() {
            return None;
        }
        let matrix = constant(model, matrix).filter(|matrix| matrix.rank() == 2)?;
        let is = |vectors: &[usize], matrix: &[usize], answer: &[usize]| {
            let is = |axis: &Axis| {
                [&*axis.inputs[0], &*axis.inputs[1], &*axis.outputs[0]] == [vectors, matrix, answer]
            };
            product.axes.iter_all_axes().any(is)
        };
        let is_product =
            |inputs, outputs| is(&[0], &[], &[0]) && is(&[1], &[inputs], &[]) && is(&[], &[outputs], &[1]);
        let weights = if is_product(1, 0) {
            matrix
        } else if is_product(0, 1) {
            Arc::new(matrix.as_ref().clone().permute_axes(&[1, 0]).ok()?)
        } else {
            return None;
        };
        let &[n_outputs, n_inputs] = weights.shape() else { return None };
        let biased = only_reader(model, node).and_then(|next| Some((next, bias(model, next, n_outputs)?)));
        let bias = match biased {
            Some((next, bias)) => {
                self.absorbed.insert(next.id);
                bias
            }
            None => Arc::new(Tensor::zero::<f32>(&[1]).ok()?),
        };
        Some((
            Does::Dense(Dense { of, shape: over_one_pixel(n_inputs, n_outputs), weights, bias }),
            Makes::Rows,
        ))
    }
}

/// The convolution that a product with a matrix is.
fn over_one_pixel(n_inputs: usize, n_outputs: usize) -> Shape {
    Shape { n_inputs, n_outputs, kernel: [1, 1], strides: [1, 1], padding: [[0; 2]; 2] }
}

/// What a node adds to each vector of `n` numbers.
fn bias(model: &TypedModel, node: &TypedNode, n: usize) -> Option<Arc<Tensor>> {
    let &[one, other] = node.inputs.as_slice() else { return None };
    let (of, bias) = match (constant(model, one), constant(model, other)) {
        (None, Some(bias)) => (one, bias),
        (Some(bias), None) => (other, bias),
        _ => return None,
    };
    let fits = bias.len() == 1 || bias.len() == n && bias.shape().last() == Some(&n);
    let same = model.outlet_fact(of).ok()?.shape == model.outlet_fact(node.id.into()).ok()?.shape;
    (is_binary::<Add>(node) && fits && same).then_some(bias)
}

/// The reader of a node's only output, where it has one reader and is no output of the network.
fn only_reader<'a>(model: &'a TypedModel, node: &TypedNode) -> Option<&'a TypedNode> {
    let is_read_elsewhere = model.outputs.contains(&node.id.into());
    model.single_succ(node.id).ok().flatten().filter(|_| !is_read_elsewhere)
}

fn is_binary<O: BinMiniOp>(node: &TypedNode) -> bool {
    node.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<O>() && op.1.is_none())
}

fn constant(model: &TypedModel, outlet: OutletId) -> Option<Arc<Tensor>> {
    let fact = model.outlet_fact(outlet).ok()?;
    fact.konst.clone().filter(|tensor| tensor.datum_type() == DatumType::F32)
}

/// The input of a node of two that is no constant, where the other is one number that passes and
/// changes no shape.
fn beside(model: &TypedModel, node: &TypedNode, passes: impl Fn(f32) -> bool) -> Option<(OutletId, f32)> {
    let &[one, other] = node.inputs.as_slice() else { return None };
    [(one, other), (other, one)].into_iter().find_map(|(of, beside)| {
        let number = constant(model, beside).filter(|tensor| tensor.len() == 1)?;
        let number = number.cast_to_scalar::<f32>().ok().filter(|number| passes(*number))?;
        let [before, after] = [model.outlet_fact(of).ok()?, model.outlet_fact(node.id.into()).ok()?];
        (before.shape == after.shape).then_some((of, number))
    })
}

/// What a node multiplies every number of its input by.
fn factor(model: &TypedModel, node: &TypedNode) -> Option<f32> {
    if is_binary::<Mul>(node) {
        return beside(model, node, f32::is_finite).map(|(_, factor)| factor);
    }
    let (of, divisor) = beside(model, node, f32::is_normal).filter(|_| is_binary::<Div>(node))?;
    (of == node.inputs[0]).then(|| 1.0 / divisor)
}
