//! Chooses between f32 and bf16 by comparing what callers would read.
//!
//! Invariant: bf16 is served where it was asked for, or where every score of every probe is within the
//! agreement that is wanted of that in f32; nothing is guessed from the network's shape.

use std::time::{Duration, Instant};

use crate::{
    engine::{
        Chosen, Compared, Engine, EngineError, Session,
        kernels::{Form, Precision},
        run_rows,
        tract::TractEngine,
    },
    manifest::Asked,
    tasks::{Prepared, Task},
};

/// What is asked for, and the largest difference of a score, a probability, with which `auto` still takes bf16.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) asked: Asked,
    pub(super) agreement: f32,
}

/// Agreement for a folder with a manifest, whose author may ask for f32.
pub(super) const CLOSE: f32 = 0.01;

/// Agreement for a folder that is to answer within 0.001 of the tool that wrote it: probes are few, and other
/// inputs may differ by more.
pub(super) const SAME: f32 = 0.000_3;

/// How long to compare, and the fewest probes that are worth a judgement.
const LONGEST: Duration = Duration::from_millis(20);
const FEWEST: usize = 4;

/// Keeps the network in f32, or loads it in bf16, as is `wanted`. `form` is the fastest in bf16 that there is.
pub(super) fn choose(
    wanted: Wanted,
    task: &dyn Task,
    exact: TractEngine,
    form: Option<Form>,
    load: impl FnOnce(Form) -> Result<TractEngine, String>,
) -> Result<(TractEngine, Chosen), String> {
    let asked = wanted.asked;
    let form = match (asked, form) {
        (Asked::F32, _) => return Ok((exact, in_f32(asked, None, None))),
        (_, None) => {
            return Ok((
                exact,
                in_f32(asked, None, Some("this processor has no kernels in bf16".to_owned())),
            ));
        }
        (_, Some(form)) => form,
    };
    let rounded = load(form)?;
    let chosen = judge(wanted, compare(task, &exact, &rounded, form));
    let engine = match chosen.used {
        Precision::F32 => exact,
        Precision::Bf16 => rounded,
    };
    Ok((engine, chosen))
}

/// Takes bf16 where the operator wants it in any case, or where the comparison speaks for it.
fn judge(wanted: Wanted, compared: Result<Option<Compared>, String>) -> Chosen {
    let Wanted { asked, agreement } = wanted;
    match compared {
        Ok(Some(found)) if asked == Asked::Bf16 || found.largest_difference <= agreement => {
            Chosen { asked, used: Precision::Bf16, compared: Some(found), reason: None }
        }
        Ok(Some(found)) => {
            in_f32(asked, Some(found), Some(format!("the most that is accepted is {agreement}")))
        }
        Ok(None) => in_f32(asked, None, Some("no kernel in bf16 runs a part of this network".to_owned())),
        Err(error) => in_f32(asked, None, Some(format!("the comparison failed: {error}"))),
    }
}

fn in_f32(asked: Asked, compared: Option<Compared>, reason: Option<String>) -> Chosen {
    Chosen { asked, used: Precision::F32, compared, reason }
}

/// Answers the task's probes in both precisions; nothing where `form` has no part in the network.
fn compare(
    task: &dyn Task,
    exact: &TractEngine,
    rounded: &TractEngine,
    form: Form,
) -> Result<Option<Compared>, String> {
    let text = |error: EngineError| error.to_string();
    let (mut in_f32, mut in_bf16) = (exact.open().map_err(text)?, rounded.open().map_err(text)?);
    let (began, form) = (Instant::now(), form.to_string());
    let mut found = Compared { n_probes: 0, largest_difference: 0.0 };
    for probe in task.calibration_inputs() {
        let scores = scores(task, in_bf16.as_mut(), &probe)?;
        if rounded.kernels().iter().all(|part| part.kernel != form) {
            return Ok(None);
        }
        let expected = self::scores(task, in_f32.as_mut(), &probe)?;
        for (score, expected) in scores.iter().zip(expected) {
            let difference = (score - expected).abs();
            // `max` would pass over what is not a number.
            if difference.is_nan() || difference > found.largest_difference {
                found.largest_difference = difference;
            }
        }
        found.n_probes += 1;
        if found.n_probes >= FEWEST && began.elapsed() > LONGEST {
            break;
        }
    }
    if found.n_probes == 0 {
        return Err("there is nothing to compare by".to_owned());
    }
    Ok(Some(found))
}

/// What a caller would read of a probe's answer.
fn scores(task: &dyn Task, session: &mut dyn Session, probe: &Prepared) -> Result<Vec<f32>, String> {
    let rows = run_rows(session, &[&probe.row]).map_err(|error| error.to_string())?;
    let row = rows.into_iter().next().unwrap_or_default();
    task.scores(row, &probe.context).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_taken_where_it_was_asked_for_or_answers_agree() {
        let found = |largest_difference| Ok(Some(Compared { n_probes: 16, largest_difference }));
        let wanted = |asked| Wanted { asked, agreement: CLOSE };
        let told = |asked, compared| judge(wanted(asked), compared).to_string();
        insta::assert_snapshot!(told(Asked::Auto, found(0.001)), @"bf16 (asked for auto; scores differ by at most 1.0e-3 over 16 probes)");
        insta::assert_snapshot!(told(Asked::Auto, found(0.02)), @"f32 (asked for auto; scores differ by at most 2.0e-2 over 16 probes; the most that is accepted is 0.01)");
        insta::assert_snapshot!(told(Asked::Auto, found(f32::NAN)), @"f32 (asked for auto; scores differ by at most NaN over 16 probes; the most that is accepted is 0.01)");
        let same = judge(Wanted { asked: Asked::Auto, agreement: SAME }, found(0.001)).to_string();
        insta::assert_snapshot!(same, @"f32 (asked for auto; scores differ by at most 1.0e-3 over 16 probes; the most that is accepted is 0.0003)");
        insta::assert_snapshot!(told(Asked::Bf16, found(0.02)), @"bf16 (asked for bf16; scores differ by at most 2.0e-2 over 16 probes)");
        insta::assert_snapshot!(told(Asked::Bf16, Ok(None)), @"f32 (asked for bf16; no kernel in bf16 runs a part of this network)");
        insta::assert_snapshot!(told(Asked::Auto, Err("no answer".to_owned())), @"f32 (asked for auto; the comparison failed: no answer)");
    }
}
