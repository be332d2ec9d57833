//! Runs a row before a model is served, where the files do not say that it will do.
//!
//! Invariant: a network that fails on the shortest texts, or whose answers nobody could read, is refused at load, and
//! not at the first request.

use crate::{
    engine::{Dim, Engine, run_rows},
    tasks::Task,
};

/// Runs a row of the shortest shape, where the task has advice for the case that it fails. Then runs one of the task's
/// calibration inputs and reads the answer, where
/// the extent of an output is free.
pub(super) fn answer(task: &dyn Task, engine: &dyn Engine) -> Result<(), String> {
    shortest(task, engine)?;
    let is_open = |dim: &Dim| matches!(dim, Dim::Free(_));
    if !engine.signature().outputs.iter().any(|port| port.shape.iter().skip(1).any(is_open)) {
        return Ok(());
    }
    let Some(input) = task.calibration_inputs().into_iter().next() else { return Ok(()) };
    let mut session = engine.open().map_err(|error| error.to_string())?;
    let rows = run_rows(session.as_mut(), &[&input.row]).map_err(|error| error.to_string())?;
    let outputs = rows.into_iter().next().unwrap_or_default();
    task.postprocess(outputs, &input.context).map(|_| ()).map_err(|error| error.to_string())
}

/// The largest difference of a score that padding may make.
const UNMOVED: f32 = 0.000_5;

/// Refuses a network that reads padding as if it were text: rows of different lengths are padded, and a folder that is
/// to answer as the tool that wrote it does may not depend on by how much.
pub(super) fn padding(task: &dyn Task, engine: &dyn Engine) -> Result<(), String> {
    let Some(rows) = task.padded() else { return Ok(()) };
    let mut session = engine.open().map_err(|error| error.to_string())?;
    let mut scores = Vec::new();
    for prepared in rows {
        let outputs = run_rows(session.as_mut(), &[&prepared.row]).map_err(|error| error.to_string())?;
        let outputs = outputs.into_iter().next().unwrap_or_default();
        scores.push(task.scores(outputs, &prepared.context).map_err(|error| error.to_string())?);
    }
    let [plain, padded] = scores.as_slice() else { return Ok(()) };
    match plain.iter().zip(padded).all(|(plain, padded)| (plain - padded).abs() <= UNMOVED) {
        true => Ok(()),
        false => Err("the network has no input `attention_mask`, and its answers change where a text is padded; expected \
                      an export with that input"
            .to_owned()),
    }
}

/// The shortest texts have the fewest tokens that a window could need. What was planned is kept for the warm-up.
fn shortest(task: &dyn Task, engine: &dyn Engine) -> Result<(), String> {
    let Some(shortest) = task.profile_inputs().into_iter().next() else { return Ok(()) };
    let Some(advice) = task.advice(shortest.shape) else { return Ok(()) };
    let mut session = engine.open().map_err(|error| error.to_string())?;
    run_rows(session.as_mut(), &[&shortest.row]).map(|_| ()).map_err(|error| format!("{error}; {advice}"))
}
