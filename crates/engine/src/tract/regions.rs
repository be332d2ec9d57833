//! Regions of a network, run by [`kernels::chain`](lepton_kernels::chain) as one operator each.
//!
//! Invariant: a region has no way out that comes back into it, and answers what its nodes answer. What
//! is not understood in full stays as it is.

mod members;
mod op;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tract_onnx::{
    prelude::{OutletId, TVec, TractResult, TypedModel, TypedModelPatch, TypedNode},
    tract_core::{
        internal::{AxisOp, StaticName},
        ops::{identity::Identity, source::TypedSource},
    },
};

pub(super) use self::op::Part;
use self::{
    members::{Does, Member, members},
    op::Convolutions,
};
use super::{conv::row_extents, taken::Packed};
use lepton_kernels::{
    chain::{Draft, Extent, Program, Value},
    conv::{Conv, Shape},
};

/// Puts one operator in the place of each region of a typed network, its constants known.
pub(super) fn take(model: &mut TypedModel, packed: &Packed) -> TractResult<()> {
    let members = members(model)?;
    let bypassed = bypassed(model, &members)?;
    let mut patch = TypedModelPatch::default();
    // What regions answer, in the patch.
    let mut wires = HashMap::new();
    for nodes in regions(&members) {
        let Some(region) = Region::of(model, &nodes, &bypassed, packed)? else { continue };
        let mut inputs = TVec::new();
        for outlet in &region.inputs {
            inputs.push(match wires.get(outlet) {
                Some(wire) => *wire,
                None => patch.tap_model(model, *outlet)?,
            });
        }
        let Some((last, _)) = region.answers.last() else { continue };
        let name = &model.node(last.node).name;
        let extents = region.answers.iter().map(|(_, extents)| extents.clone()).collect();
        let op = Convolutions::new(region.program, extents, region.parts);
        let answers = patch.wire_node(name, op, &inputs)?;
        wires.extend(region.answers.iter().map(|(outlet, _)| *outlet).zip(answers));
    }
    for (outlet, wire) in wires {
        patch.shunt_outside(model, outlet, wire)?;
    }
    patch.apply(model)
}

/// Says whether regions do all the work of a typed network, its constants known, so that nothing of
/// tract's own is left in it.
pub(super) fn are_all(model: &TypedModel) -> TractResult<bool> {
    let members = members(model)?;
    let bypassed = bypassed(model, &members)?;
    let nodes: HashSet<usize> = members.iter().map(|member| member.node).collect();
    let is_left = |id: &usize| {
        let node = model.node(*id);
        let is_known = node.outputs.iter().all(|output| output.fact.konst.is_some());
        let is_nothing = node.op_is::<TypedSource>() || node.op_is::<Identity>() || is_known;
        !nodes.contains(id) && !bypassed.contains(id) && !is_nothing
    };
    let convolves = members.iter().any(|member| matches!(member.does, Does::Conv(_)));
    Ok(convolves && !model.eval_order()?.iter().any(is_left))
}

/// The parts of the work of a region's operator; nothing where a node is none.
pub(super) fn parts(node: &TypedNode) -> Option<&[Part]> {
    node.op_as::<Convolutions>().map(Convolutions::parts)
}

/// The nodes that a region can have, parted so that those of a region lead to each other, each in the
/// order of evaluation; regions in the order in which they feed each other.
fn regions(members: &[Member]) -> Vec<Vec<&Member>> {
    let place: HashMap<usize, usize> = members.iter().enumerate().map(|(at, it)| (it.node, at)).collect();
    let mut region_of: Vec<usize> = (0..members.len()).collect();
    for (at, member) in members.iter().enumerate() {
        for input in member.does.inputs() {
            let Some(&other) = place.get(&input.node).filter(|&&other| members[other].level == member.level)
            else {
                continue;
            };
            let (one, other) = (region_of[at], region_of[other]);
            region_of.iter_mut().filter(|it| **it == one).for_each(|it| *it = other);
        }
    }
    let mut first: Vec<usize> = region_of.clone();
    first.sort_unstable_by_key(|&at| (members[at].level, at));
    first.dedup();
    let nodes = |region: usize| {
        let of = region_of.iter().zip(members).filter(|(of, _)| **of == region);
        of.map(|(_, member)| member).collect()
    };
    first.into_iter().map(nodes).collect()
}

/// A region with its program.
struct Region {
    program: Program,
    parts: Vec<Part>,
    inputs: Vec<OutletId>,
    /// What others read, and the extents of its rows.
    answers: Vec<(OutletId, TVec<usize>)>,
}

impl Region {
    /// Drafts the program of a region; nothing where it convolves no pictures.
    fn of(
        model: &TypedModel,
        nodes: &[&Member],
        bypassed: &HashSet<usize>,
        packed: &Packed,
    ) -> TractResult<Option<Self>> {
        let Some(answers) = answers(model, nodes, bypassed) else { return Ok(None) };
        let mut convs: HashMap<usize, (Arc<Conv>, Part)> = HashMap::new();
        for member in nodes {
            let Some((form, convolved)) = member.does.convolution(packed) else { continue };
            let name = &model.node(member.node).name;
            let (shape, extent) = (convolved.shape, convolved.extent);
            let conv = packed.conv(name, form, shape, convolved.weights, convolved.bias)?;
            let (Some(conv), Some(products)) = (conv, products(shape, extent)) else { return Ok(None) };
            let operator: StaticName = model.node(member.node).op.name();
            convs.insert(member.node, (conv, Part { operator, form, products }));
        }
        let precision = nodes.iter().find_map(|member| match member.does {
            Does::Conv(_) => convs.get(&member.node).map(|(conv, _)| conv.precision()),
            _ => None,
        });
        let Some(precision) = precision else { return Ok(None) };
        let mut sketch = Sketch { draft: Draft::new(precision), inputs: Vec::new(), values: HashMap::new() };
        for member in nodes {
            let conv = convs.get(&member.node).map(|(conv, _)| conv);
            if sketch.add(model, member, conv).is_none() {
                return Ok(None);
            }
        }
        let Sketch { mut draft, inputs, values } = sketch;
        answers.iter().filter_map(|(outlet, _)| values.get(outlet)).for_each(|value| draft.answer(*value));
        let parts =
            nodes.iter().filter_map(|member| convs.remove(&member.node)).map(|(_, part)| part).collect();
        Ok(draft.finish().map(|program| Self { program, parts, inputs, answers }))
    }
}

/// What of a region others read, with the extents of its rows; nothing where an extent is not known.
fn answers(
    model: &TypedModel,
    nodes: &[&Member],
    bypassed: &HashSet<usize>,
) -> Option<Vec<(OutletId, TVec<usize>)>> {
    let inside: HashSet<usize> = nodes.iter().map(|member| member.node).collect();
    let is_read = |outlet: &OutletId| {
        let mut readers = model.node(outlet.node).outputs[outlet.slot].successors.iter();
        let is_outside = |reader: usize| !inside.contains(&reader) && !bypassed.contains(&reader);
        model.outputs.contains(outlet) || readers.any(|reader| is_outside(reader.node))
    };
    let outlets = nodes.iter().map(|member| OutletId::from(member.node)).filter(is_read);
    outlets.map(|outlet| Some((outlet, row_extents(model, outlet)?))).collect()
}

/// The nodes that move numbers to members only which read them from before the move.
fn bypassed(model: &TypedModel, members: &[Member]) -> TractResult<HashSet<usize>> {
    let member: HashMap<usize, &Member> = members.iter().map(|member| (member.node, member)).collect();
    let mut bypassed = HashSet::new();
    for id in model.eval_order()?.into_iter().rev().filter(|id| !member.contains_key(id)) {
        let outlet = OutletId::from(id);
        let skips = |reader: usize| match member.get(&reader) {
            Some(member) => member.does.inputs().all(|input| input != outlet),
            None => bypassed.contains(&reader),
        };
        let mut readers = model.node(id).outputs.iter().flat_map(|output| &output.successors);
        if model.node(id).op_is::<AxisOp>()
            && !model.outputs.contains(&outlet)
            && readers.all(|reader| skips(reader.node))
        {
            bypassed.insert(id);
        }
    }
    Ok(bypassed)
}

/// Products of one picture.
fn products(shape: Shape, extent: Extent) -> Option<usize> {
    let [height, width] = shape.extent([extent.height, extent.width])?;
    let Shape { n_inputs, n_outputs, kernel, .. } = shape;
    Some(height * width * n_inputs * n_outputs * kernel[0] * kernel[1])
}

/// The program of a region in the making.
struct Sketch {
    draft: Draft,
    /// What comes in from outside, as the draft's inputs.
    inputs: Vec<OutletId>,
    values: HashMap<OutletId, Value>,
}

impl Sketch {
    /// Drafts what a member does; nothing where the kernels do not.
    fn add(&mut self, model: &TypedModel, member: &Member, conv: Option<&Arc<Conv>>) -> Option<()> {
        let mut of = member.does.inputs();
        let one = self.value(model, of.next()?)?;
        let made = match &member.does {
            Does::Conv(_) | Does::Dense(_) => self.draft.conv(Arc::clone(conv?), one)?,
            Does::Add(_) => {
                let other = self.value(model, of.next()?)?;
                self.draft.add(one, other)?
            }
            Does::Relu(_) => self.draft.relu(one),
            Does::Sum { factor, .. } => self.draft.sum(one, *factor)?,
            Does::Same(_) => one,
        };
        self.values.insert(member.node.into(), made);
        Some(())
    }

    fn value(&mut self, model: &TypedModel, outlet: OutletId) -> Option<Value> {
        if let Some(value) = self.values.get(&outlet) {
            return Some(*value);
        }
        let &[n_channels, height, width] = row_extents(model, outlet)?.as_slice() else {
            return None;
        };
        let value = self.draft.input(Extent { n_channels, height, width })?;
        self.inputs.push(outlet);
        self.values.insert(outlet, value);
        Some(value)
    }
}
