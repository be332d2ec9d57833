//! One answer as a line of JSON, in the words of `/v1`.

use std::{borrow::Cow, time::Duration};

use serde::Serialize;

use super::{Origin, Told};
use crate::{api::Entry, error::Error, metrics::Cost};

/// Where an input stands, then its answer and cost, or why there is none.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    file: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(flatten)]
    outcome: Outcome<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Outcome<'a> {
    Answered {
        #[serde(flatten)]
        entry: Entry<'a>,
        cost: Milliseconds,
    },
    Failed {
        error: String,
    },
}

/// A cost with times in milliseconds.
#[derive(Serialize)]
struct Milliseconds {
    queue_ms: f64,
    prepare_ms: f64,
    infer_ms: f64,
    answer_ms: f64,
    cpu_ms: f64,
    batch: usize,
}

impl<'a> Line<'a> {
    pub(super) fn of(origin: &'a Origin, told: &'a Result<Told, Error>, top_k: usize) -> Self {
        let outcome = match told {
            Ok(Told::Model(answered)) => Outcome::Answered {
                entry: Entry::new(&answered.answer, top_k),
                cost: Milliseconds::of(&answered.cost),
            },
            Ok(Told::Pipeline(scene, stages)) => match Entry::of_scene(scene, stages, top_k) {
                Ok(entry) => Outcome::Answered { entry, cost: Milliseconds::of(&scene.cost()) },
                Err(error) => Outcome::Failed { error: error.to_string() },
            },
            Err(error) => Outcome::Failed { error: error.to_string() },
        };
        Self { file: origin.file.to_string_lossy(), line: origin.line, outcome }
    }
}

impl Milliseconds {
    fn of(cost: &Cost) -> Self {
        // Microseconds are as fine as the clocks are worth.
        let ms = |duration: Duration| duration.as_micros() as f64 / 1000.0;
        Self {
            queue_ms: ms(cost.queue),
            prepare_ms: ms(cost.prepare),
            infer_ms: ms(cost.infer),
            answer_ms: ms(cost.answer),
            cpu_ms: ms(cost.cpu),
            batch: cost.batch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pool::Answered,
        tasks::{About, Answer, Output, Ranked, Scored, Supported, Truncated},
    };

    fn printed(line: Option<usize>, answered: Result<Told, Error>) -> String {
        let origin = Origin { file: "input".into(), line };
        serde_json::to_string(&Line::of(&origin, &answered, usize::MAX)).unwrap()
    }

    fn answered(about: About) -> Result<Told, Error> {
        let cost = Cost { infer: Duration::from_micros(1500), batch: 2, ..Cost::default() };
        let answer = Answer { output: Output::Classes(scores()), about };
        Ok(Told::Model(Answered { answer, cost, items: Vec::new() }))
    }

    fn scores() -> Ranked {
        Ranked::from(vec![Scored::new("positive", 0.75), Scored::new("negative", 0.25)])
    }

    #[test]
    fn a_text_is_told_with_its_line_answer_and_cost() {
        let answer = About::Text { tokens: 3, truncated: Truncated::No, supported: Supported::Unsaid };
        insta::assert_snapshot!(printed(Some(7), answered(answer)), @r#"{"file":"input","line":7,"label":"positive","score":0.75,"scores":[{"label":"positive","score":0.75},{"label":"negative","score":0.25}],"tokens":3,"truncated":false,"cost":{"queue_ms":0.0,"prepare_ms":0.0,"infer_ms":1.5,"answer_ms":0.0,"cpu_ms":0.0,"batch":2}}"#);
    }

    #[test]
    fn an_image_is_told_with_its_size_and_labels() {
        let answer = About::Image { width: 5, height: 6 };
        insta::assert_snapshot!(printed(None, answered(answer)), @r#"{"file":"input","width":5,"height":6,"label":"positive","score":0.75,"scores":[{"label":"positive","score":0.75},{"label":"negative","score":0.25}],"cost":{"queue_ms":0.0,"prepare_ms":0.0,"infer_ms":1.5,"answer_ms":0.0,"cpu_ms":0.0,"batch":2}}"#);
    }

    #[test]
    fn a_line_says_why_there_is_no_answer() {
        insta::assert_snapshot!(printed(None, Err(Error::malformed("no image"))), @r#"{"file":"input","error":"no image"}"#);
    }
}
