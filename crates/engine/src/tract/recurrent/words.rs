//! Words that come into a recurrence by number: what each adds to the gates is kept in a table.

use std::sync::Arc;

use tract_onnx::{
    prelude::{DatumType, Tensor, TractError, TractResult, f16},
    tract_core::{
        internal::{AxisOp, OutletId, TypedModel},
        ops::{array::Gather, cast::Cast},
    },
};

use super::Packed;
use lepton_kernels::recurrent::{Gates, Table};

/// Most bytes that the table of one vocabulary and cell may grow to.
const TABLE_BYTES: usize = 64 << 20;

/// Words by number instead of vectors: the vectors of a vocabulary, [words, inputs], and what each adds
/// to the gates of each cell.
#[derive(Debug, Clone)]
pub(super) struct Words {
    vectors: Arc<Tensor>,
    tables: Arc<[Table]>,
}

/// The axes of the words that come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Order {
    StepsFirst,
    RowsFirst,
}

/// Looks whether `vectors` are rows of a constant table: answers the numbers of the rows, the order of
/// their axes, and the table.
pub(super) fn vocabulary(
    model: &TypedModel,
    mut vectors: OutletId,
    packed: &Packed,
) -> TractResult<Option<(OutletId, Order, Words)>> {
    let mut order = Order::StepsFirst;
    let gather = loop {
        let node = model.node(vectors.node);
        if let Some(gather) = node.op_as::<Gather>() {
            break gather;
        }
        match node.op_as::<AxisOp>() {
            Some(AxisOp::Move(0, 1) | AxisOp::Move(1, 0)) => {
                order = match order {
                    Order::StepsFirst => Order::RowsFirst,
                    Order::RowsFirst => Order::StepsFirst,
                };
            }
            // Widening loses nothing.
            None if node.op_as::<Cast>().is_some_and(|cast| cast.to == DatumType::F32) => {}
            _ => return Ok(None),
        }
        vectors = node.inputs[0];
    };
    let node = model.node(vectors.node);
    let (table, ids) = (node.inputs[0], node.inputs[1]);
    let ids_fact = model.outlet_fact(ids)?;
    let Some(table) = model.outlet_fact(table)?.konst.clone() else { return Ok(None) };
    let fits = gather.axis == 0
        && table.rank() == 2
        && table.shape()[1] == packed.cells[0].n_inputs()
        && matches!(table.datum_type(), DatumType::F16 | DatumType::F32)
        && ids_fact.datum_type == DatumType::I64
        && ids_fact.rank() == 2;
    if !fits {
        return Ok(None);
    }
    let make = || {
        let n_words = table.shape()[0];
        let tables: Option<Arc<[Table]>> =
            packed.cells.iter().map(|cell| Table::new(Arc::clone(cell), n_words, TABLE_BYTES)).collect();
        Some(Words { vectors: Arc::clone(&table), tables: tables? })
    };
    let words = packed.words.get_or_init(make).clone();
    Ok(words.filter(|words| words.vectors.shape() == table.shape()).map(|words| (ids, order, words)))
}

impl Words {
    /// Finds what the words of `ids` add to the gates of a direction's cell, by step and row.
    pub(super) fn gates(&self, direction: usize, ids: &Tensor, order: Order) -> TractResult<Gates<'_>> {
        let n_words = self.vectors.shape()[0];
        let (n_outer, n_inner) = (ids.shape()[0], ids.shape()[1]);
        let ids = ids.try_as_plain_ram()?;
        let ids = ids.as_slice::<i64>()?;
        // Numbers below zero count from the end, as ONNX's Gather has it.
        let word = |id: i64| {
            let id = if id < 0 { id.saturating_add_unsigned(n_words as u64) } else { id };
            usize::try_from(id).unwrap_or(usize::MAX)
        };
        let table = &self.tables[direction];
        let vectors = self.vectors.try_as_plain_ram()?;
        let n_inputs = self.vectors.shape()[1];
        let f32s = vectors.as_slice::<f32>().ok();
        let f16s = vectors.as_slice::<f16>().ok();
        let vector = |word: usize, to: &mut [f32]| {
            let range = word * n_inputs..(word + 1) * n_inputs;
            match (f32s, f16s) {
                (Some(all), _) => to.copy_from_slice(&all[range]),
                (None, Some(all)) => {
                    to.iter_mut().zip(&all[range]).for_each(|(to, x)| *to = x.to_f32());
                }
                (None, None) => to.fill(f32::NAN),
            }
        };
        let found = match order {
            Order::StepsFirst => table.gates(ids.iter().map(|id| word(*id)), vector),
            Order::RowsFirst => {
                let by_step = (0..n_inner).flat_map(|step| (0..n_outer).map(move |row| row * n_inner + step));
                table.gates(by_step.map(|at| word(ids[at])), vector)
            }
        };
        found.map_err(|_| {
            let text = format!("a word's number is not below {n_words}, the size of the vocabulary");
            TractError::msg(text)
        })
    }
}
