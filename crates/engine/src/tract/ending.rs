//! What the numbers of an output are, read from the last operators of the graph.
//!
//! Invariant: only what surely is a probability is called one; what is not recognised stays open.

use tract_onnx::pb;

use crate::Ending;

/// Operators that are looked through at most: what follows a softmax is a cast or two.
const MOST_STEPS: usize = 16;

/// What comes last before the graph's output `name`, apart from operators that move numbers and leave them as they
/// are. A logarithm of probabilities stays open: the softmax of it gives the probabilities back.
pub(super) fn of(graph: &pb::GraphProto, name: &str) -> Ending {
    let mut name = name;
    for _ in 0..MOST_STEPS {
        let makes = |node: &&pb::NodeProto| node.output.first().is_some_and(|output| output == name);
        let Some(node) = graph.node.iter().find(makes) else { return Ending::Open };
        match node.op_type.as_str() {
            "Softmax" | "Sigmoid" | "HardSigmoid" => return Ending::Probabilities,
            "Cast" | "Clip" | "DequantizeLinear" | "Dropout" | "Flatten" | "Identity" | "QuantizeLinear"
            | "Reshape" | "Squeeze" | "Unsqueeze" => match node.input.first() {
                Some(input) => name = input,
                None => return Ending::Open,
            },
            _ => return Ending::Open,
        }
    }
    Ending::Open
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: &[(&str, &str, &str)]) -> pb::GraphProto {
        let node = |(op, input, output): &(&str, &str, &str)| pb::NodeProto {
            op_type: (*op).to_owned(),
            input: vec![(*input).to_owned()],
            output: vec![(*output).to_owned()],
            ..Default::default()
        };
        pb::GraphProto { node: nodes.iter().map(node).collect(), ..Default::default() }
    }

    #[test]
    fn a_softmax_or_a_sigmoid_is_seen_through_what_only_moves_numbers() {
        for last in ["Softmax", "Sigmoid"] {
            let plain = graph(&[("Gemm", "x", "l"), (last, "l", "y")]);
            assert_eq!(of(&plain, "y"), Ending::Probabilities);
            assert_eq!(of(&plain, "l"), Ending::Open);
            let moved =
                graph(&[(last, "l", "p"), ("Cast", "p", "c"), ("Squeeze", "c", "s"), ("Identity", "s", "y")]);
            assert_eq!(of(&moved, "y"), Ending::Probabilities);
        }
    }

    #[test]
    fn everything_else_stays_open() {
        for last in ["LogSoftmax", "Gemm", "Add", "Mul", "Tanh"] {
            assert_eq!(of(&graph(&[("Softmax", "x", "l"), (last, "l", "y")]), "y"), Ending::Open, "{last}");
        }
        let circle = graph(&[("Identity", "b", "a"), ("Identity", "a", "b")]);
        assert_eq!(of(&circle, "a"), Ending::Open);
        assert_eq!(of(&graph(&[]), "y"), Ending::Open);
    }
}
