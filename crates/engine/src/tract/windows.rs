//! Windows that are wider than what they slide over.
//!
//! Invariant: no plan is made in which a convolution or a pooling has nothing to answer: tract lets it give an empty
//! tensor, and what follows makes scores of it that mean nothing.

use tract_onnx::prelude::{TractError, TractResult, TypedModel};

/// tract's names of the operators that slide a window.
const SLIDING: [&str; 3] = ["Conv", "MaxPool", "SumPool"];

/// Refuses a network whose rows are shorter than one of its windows.
pub(super) fn check(network: &TypedModel) -> TractResult<()> {
    for node in network.nodes() {
        let slides = SLIDING.contains(&node.op.name().as_ref());
        let is_empty = |extent: &_| *extent == 0.into();
        if let Some(output) =
            node.outputs.iter().find(|output| slides && output.fact.shape.iter().any(is_empty))
        {
            let shape: Vec<String> = output.fact.shape.iter().map(ToString::to_string).collect();
            return Err(TractError::msg(format!(
                "`{}` slides a window over less than it is wide, and gives a tensor of shape [{}]",
                node.name,
                shape.join(", ")
            )));
        }
    }
    Ok(())
}
