//! The operator suite of the ONNX project, from the folder beside the repository: each form of the
//! kernels answers rightly exactly those cases that stock tract answers rightly.
//!
//! The suite is unpacked by `tar` and `xz`. Where it or they are missing, the test says so and proves
//! nothing.

mod suite;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use self::suite::Case;
use super::*;

/// Fewest cases that stock tract answers rightly: with fewer, the suite was not read as it is.
const FEWEST_RIGHT: usize = 1200;

/// Fewest cases in which a kernel does a part of the work.
const FEWEST_TAKEN: usize = 12;

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It was refused, or it failed.
    NotServed,
    Wrong,
    Right,
}

/// What became of a case in one form.
struct Judged {
    verdict: Verdict,
    /// Whether a kernel did a part of the work.
    is_taken: bool,
}

#[test]
fn each_form_answers_the_cases_that_stock_tract_answers_and_no_others() {
    let Some(cases) = suite::cases() else { return };
    let forms: Vec<Option<Form>> = [None].into_iter().chain(Form::all().into_iter().map(Some)).collect();
    let (next, judged) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found: Vec<Judged> = forms.iter().map(|form| judge(case, *form)).collect();
            judged.lock().unwrap().push((case.name.as_str(), found));
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let judged = judged.into_inner().unwrap();
    assert_eq!(judged.len(), cases.len());
    let n_right = judged.iter().filter(|(_, found)| found[0].verdict == Verdict::Right).count();
    assert!(n_right >= FEWEST_RIGHT, "{n_right} cases of {} are right", cases.len());
    for (position, form) in forms.iter().enumerate().skip(1) {
        let form = form.unwrap();
        let differ = judged.iter().filter(|(_, found)| found[position].verdict != found[0].verdict);
        let differ: Vec<String> = differ
            .map(|(name, found)| {
                format!("{name}: {:?}, stock {:?}", found[position].verdict, found[0].verdict)
            })
            .collect();
        assert!(differ.is_empty(), "{form}: {differ:#?}");
        let n_taken = judged.iter().filter(|(_, found)| found[position].is_taken).count();
        assert!(n_taken >= FEWEST_TAKEN, "{form}: the kernels have a part in {n_taken} cases only");
    }
}

fn judge(case: &Case, form: Option<Form>) -> Judged {
    let Ok(engine) = TractEngine::load_with(&case.network, None, form) else {
        return Judged { verdict: Verdict::NotServed, is_taken: false };
    };
    let mut session = engine.open().unwrap();
    let run = AssertUnwindSafe(|| session.run(case.inputs.clone()));
    let verdict = match panic::catch_unwind(run) {
        Ok(Ok(outputs)) if case.is_answered_by(&outputs, form) => Verdict::Right,
        Ok(Ok(_)) => Verdict::Wrong,
        Ok(Err(_)) | Err(_) => Verdict::NotServed,
    };
    let is_taken = engine.kernels().iter().any(|part| part.reason.is_none() && form.is_some());
    Judged { verdict, is_taken }
}

impl Case {
    fn is_answered_by(&self, outputs: &[Tensor], form: Option<Form>) -> bool {
        let precision = form.map_or(Precision::F32, Form::precision);
        outputs.len() == self.outputs.len()
            && outputs.iter().zip(&self.outputs).all(|(found, expected)| is_near(found, expected, precision))
    }
}

/// Says whether an output is what the suite expects: in f32 as near as the suite asks, in bf16 as near
/// as its 8 bits allow.
fn is_near(found: &Tensor, expected: &Tensor, precision: Precision) -> bool {
    let (Ok(of), Ok(to)) = (found.as_slice::<f32>(), expected.as_slice::<f32>()) else {
        return found == expected;
    };
    let largest = to.iter().filter(|x| x.is_finite()).fold(0.0f32, |most, x| most.max(x.abs()));
    let near = |of: f32, to: f32| {
        let allowed = match precision {
            Precision::F32 => 1e-5 + 1e-3 * to.abs(),
            Precision::Bf16 => 2e-2 * largest,
        };
        of == to || of.is_nan() && to.is_nan() || (of - to).abs() <= allowed
    };
    found.shape() == expected.shape() && of.iter().zip(to).all(|(of, to)| near(*of, *to))
}
