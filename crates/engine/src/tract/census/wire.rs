//! Counts what a file holds before it is decoded: a message of no bytes takes two on the wire and hundreds
//! once it is decoded.
//!
//! Invariant: no memory is taken, and the depth of the recursion is bounded. What is no message of ONNX is
//! passed over, as the decoder passes over it.

use super::{Limits, refused, too_deep, too_many_nodes};
use crate::EngineError;

/// The messages of `onnx.proto3` that can hold others, or numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    Value,
    Type,
    TensorType,
    Shape,
    Annotation,
    Training,
    Function,
    /// Texts and numbers alone: an axis, an entry, a segment, an operator set.
    Plain,
}

/// What a field holds, as far as it is counted.
enum Holds {
    Message(Kind),
    /// A text, or bytes; or a list of numbers of a fixed width, which takes as much as it is long.
    Bytes,
    /// Numbers that are written in one byte or more.
    Numbers,
}

impl Kind {
    /// What the field of this number holds (onnx.proto3, release 1.16).
    fn field(self, number: u64) -> Holds {
        use Holds::{Bytes, Message, Numbers};
        match (self, number) {
            (Self::Model, 7) | (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => Message(Self::Graph),
            (Self::Model, 8 | 14)
            | (Self::Function, 9)
            | (Self::Shape, 1)
            | (Self::Tensor, 3 | 13)
            | (Self::Annotation, 2)
            | (Self::Training, 3 | 4) => Message(Self::Plain),
            (Self::Model, 20) => Message(Self::Training),
            (Self::Model, 25) => Message(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Message(Self::Node),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Message(Self::Tensor),
            (Self::Graph, 11..=13) => Message(Self::Value),
            (Self::Graph, 14) => Message(Self::Annotation),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Message(Self::Sparse),
            (Self::Node, 5) => Message(Self::Attribute),
            (Self::Value, 2) | (Self::Attribute, 15) => Message(Self::Type),
            (Self::Type, 1) => Message(Self::TensorType),
            (Self::TensorType, 2) => Message(Self::Shape),
            (Self::Attribute, 8) | (Self::Tensor, 1 | 5 | 7 | 11) | (Self::Sparse, 3) => Numbers,
            _ => Bytes,
        }
    }
}

/// Counts the parts of a file; refuses it where they are more than allowed, or are no protobuf.
pub(in crate::tract) fn count(bytes: &[u8], limits: Limits) -> Result<(), EngineError> {
    let mut count = Count { limits, nodes: 0, parts: 0, numbers: 0 };
    count.message(Kind::Model, bytes, 0)
}

struct Count {
    limits: Limits,
    nodes: usize,
    parts: usize,
    numbers: usize,
}

impl Count {
    /// Counts a message; `graphs` are around it.
    fn message(&mut self, kind: Kind, bytes: &[u8], graphs: usize) -> Result<(), EngineError> {
        self.nodes += usize::from(kind == Kind::Node);
        if self.nodes > self.limits.nodes {
            return Err(too_many_nodes(self.nodes, self.limits.nodes));
        }
        let graphs = graphs + usize::from(kind == Kind::Graph);
        if graphs > self.limits.graphs {
            return Err(too_deep(self.limits.graphs));
        }
        let mut reader = Reader(bytes);
        while let Some((number, wire)) = reader.key()? {
            match (kind.field(number), wire) {
                (Holds::Numbers, Wire::Varint) => self.add_numbers(1)?,
                // Each number ends with the one byte of it that has no mark.
                (Holds::Numbers, Wire::Bytes(bytes)) => {
                    self.add_numbers(bytes.iter().filter(|byte| **byte < 0x80).count())?;
                }
                (Holds::Message(inner), Wire::Bytes(bytes)) => {
                    self.add_part()?;
                    self.message(inner, bytes, graphs)?;
                }
                (_, Wire::Bytes(_)) => self.add_part()?,
                (_, Wire::Varint | Wire::Fixed) => {}
            }
        }
        Ok(())
    }

    fn add_part(&mut self) -> Result<(), EngineError> {
        self.parts += 1;
        if self.parts > self.limits.parts {
            let limit = self.limits.parts;
            return Err(refused(format!("it has more than {limit} messages and texts")));
        }
        Ok(())
    }

    fn add_numbers(&mut self, n: usize) -> Result<(), EngineError> {
        self.numbers += n;
        if self.numbers > self.limits.numbers {
            let limit = self.limits.numbers;
            return Err(refused(format!("it writes more than {limit} numbers one by one")));
        }
        Ok(())
    }
}

/// A field's value, as far as it is of use here.
enum Wire<'a> {
    Varint,
    Fixed,
    Bytes(&'a [u8]),
}

/// Reads fields (protobuf encoding, "Message Structure").
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next field: its number and value; `None` at the end.
    fn key(&mut self) -> Result<Option<(u64, Wire<'a>)>, EngineError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => {
                self.varint()?;
                Wire::Varint
            }
            1 => self.take(8).map(|_| Wire::Fixed)?,
            2 => {
                let len = self.varint()?;
                Wire::Bytes(self.take(usize::try_from(len).unwrap_or(usize::MAX))?)
            }
            5 => self.take(4).map(|_| Wire::Fixed)?,
            _ => return Err(refused("it has groups, which ONNX does not use, or is no protobuf".to_owned())),
        };
        Ok(Some((key >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, EngineError> {
        let mut value = 0u64;
        for (at, byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(ended())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], EngineError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(ended)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn ended() -> EngineError {
    refused("it ends in the middle of a field, or is no protobuf".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: Limits =
        Limits { nodes: 10, parts: 100, numbers: 50, graphs: 2, weight_bytes: 0, elements: 0 };

    fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
        let mut message = vec![(number << 3 | 2) as u8];
        let mut len = bytes.len();
        while len >= 0x80 {
            message.push(len as u8 | 0x80);
            len >>= 7;
        }
        message.push(len as u8);
        message.extend_from_slice(bytes);
        message
    }

    fn refusal(bytes: &[u8]) -> String {
        count(bytes, FEW).unwrap_err().to_string()
    }

    #[test]
    fn operators_of_no_bytes_are_counted_before_they_are_decoded() {
        let graph = |n: usize| field(7, &[0x0a, 0].repeat(n));
        count(&graph(10), FEW).unwrap();
        assert!(refusal(&graph(11)).contains("it has 11 operators or more, 10 are allowed"));
    }

    #[test]
    fn every_other_part_and_every_number_is_counted() {
        // Weights, inputs and annotations of a graph; entries of the model.
        for number in [5, 11, 14] {
            let text = refusal(&field(7, &[(number << 3 | 2) as u8, 0].repeat(101)));
            assert!(text.contains("more than 100 messages"), "{number}: {text}");
        }
        assert!(refusal(&field(14, &[]).repeat(101)).contains("more than 100 messages"));
        let numbers = |n: usize| field(7, &field(5, &field(7, &vec![1; n])));
        count(&numbers(50), FEW).unwrap();
        assert!(refusal(&numbers(51)).contains("more than 50 numbers"));
    }

    #[test]
    fn graphs_inside_one_another_are_counted_through_their_operators() {
        let inner = |graph: &[u8]| field(1, &field(5, &field(6, graph)));
        count(&field(7, &inner(&[])), FEW).unwrap();
        assert!(refusal(&field(7, &inner(&inner(&[])))).contains("a depth of more than 2"));
    }

    #[test]
    fn what_is_no_protobuf_is_refused() {
        for bytes in [&[0x0f][..], &[0x0a], &[0x0a, 5, 1], &[0xff; 12], &[0x0b], &[0x08]] {
            assert!(refusal(bytes).contains("protobuf"), "{bytes:?}");
        }
    }
}
