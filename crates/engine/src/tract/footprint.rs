//! How much memory the values of a plan take, before it is kept.
//!
//! Invariant: sums are counted without overflow, and what has no size before it runs is left out.

use tract_onnx::{
    prelude::{SymbolValues, TractError, TractResult, TypedModel},
    tract_hir::internal::DimLike,
};

/// Values that are alive at once may have this many times the elements of the largest one.
const ALIVE: usize = 4;

/// What the values of a plan may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Footprint {
    /// Elements of one value.
    most: usize,
}

impl Footprint {
    /// Allows `elements` for one value, or as many as the largest weight has: that lies on the disk, and is no
    /// bomb, nor is what is made of it.
    pub(super) fn new(elements: usize, largest_weight: usize) -> Self {
        Self { most: elements.max(largest_weight) }
    }

    /// Refuses a plan whose values would not fit in memory: a padding or a stride of a few bytes in the
    /// file can size one, and a thousand operators can ask for a thousand of them.
    pub(super) fn check(self, network: &TypedModel, symbols: &SymbolValues) -> TractResult<()> {
        let order = network.eval_order()?;
        let mut last_read = vec![0; network.nodes().len()];
        for (at, id) in order.iter().enumerate() {
            last_read[*id] = at;
            network.node(*id).inputs.iter().for_each(|input| last_read[input.node] = at);
        }
        for output in &network.outputs {
            last_read[output.node] = order.len();
        }
        let mut ends: Vec<usize> = vec![0; order.len() + 1];
        let mut alive = 0usize;
        for (at, id) in order.iter().enumerate() {
            let node = network.node(*id);
            let mut made = 0usize;
            for output in &node.outputs {
                let extents = output.fact.shape.iter().map(|dim| dim.eval(symbols).to_usize());
                let Ok(shape) = extents.collect::<Result<Vec<usize>, _>>() else { continue };
                let n = shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
                let Some(n) = n.filter(|n| *n <= self.most) else {
                    let (name, limit) = (&node.name, self.most);
                    let text =
                        format!("`{name}` makes a tensor of shape {shape:?}, {limit} elements are allowed");
                    return Err(TractError::msg(text));
                };
                // A constant is there already, and stays.
                if output.fact.konst.is_none() {
                    made = made.saturating_add(n);
                }
            }
            alive = alive.saturating_add(made);
            if alive > ALIVE.saturating_mul(self.most) {
                let (name, limit) = (&node.name, ALIVE.saturating_mul(self.most));
                let text =
                    format!("{alive} elements are alive at once when `{name}` has run, {limit} are allowed");
                return Err(TractError::msg(text));
            }
            ends[last_read[*id]] = ends[last_read[*id]].saturating_add(made);
            alive = alive.saturating_sub(std::mem::take(&mut ends[at]));
        }
        Ok(())
    }
}
