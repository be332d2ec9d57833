//! What a task's readers would see of a network in f32 and in bf16, for the engine to compare.

use crate::{
    engine::Evidence,
    tasks::{Prepared, Task},
    tensor::Tensors,
};

/// Tolerance for a folder with a manifest, whose author may ask for f32.
pub(super) const CLOSE: f32 = 0.01;

/// Tolerance for a folder that is to answer within 0.001 of the tool that wrote it: calibration inputs are few, and other
/// inputs may differ by more.
pub(super) const SAME: f32 = 0.000_3;

/// A task's calibration inputs, and the scores of their answers.
pub(super) struct TaskEvidence<'t> {
    task: &'t dyn Task,
    inputs: Vec<Prepared>,
}

impl<'t> TaskEvidence<'t> {
    pub(super) fn of(task: &'t dyn Task) -> Self {
        Self { task, inputs: task.calibration_inputs() }
    }
}

impl Evidence for TaskEvidence<'_> {
    fn input(&self, position: usize) -> Option<&Tensors> {
        self.inputs.get(position).map(|prepared| &prepared.row)
    }

    fn scores(&self, position: usize, outputs: Tensors) -> Result<Vec<f32>, String> {
        let prepared = self.inputs.get(position).ok_or("there is no such input")?;
        self.task.scores(outputs, &prepared.context).map_err(|error| error.to_string())
    }
}
