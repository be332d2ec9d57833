//! Requests that a pipeline answers.
//!
//! Invariant: a pipeline is asked in the way that a model is; only what the answer is made of differs.

use axum::{extract::Request, response::Response};

use super::{
    AppState,
    body::read,
    extract::Parameters,
    predict::{Asked, Parsed, Target, find, inputs, refused, respond},
    problem::Refusal,
    timing::ServerTiming,
};
use crate::{
    api::{AnswerBody, AnsweredBy, Entry},
    error::Error,
    pipelines::{self, Failure, Stages},
    tasks::top_k,
};

/// The value of `detector=` that has pictures answered whole.
const NONE: &str = "none";

/// Finds what a name and `?detector=` ask for: a pipeline, a model, or a model behind a detector.
pub(super) fn target(state: &AppState, name: &str, detector: Option<&str>) -> Result<Target, Error> {
    let pool = state.pool();
    let pipeline = state.pipelines().find(name);
    match (pipeline, detector) {
        (Some(pipeline), None) => {
            let stages = Stages::of(&pipeline.spec, pool)?;
            Ok(Target::Pipeline { name: name.to_owned(), stages })
        }
        (Some(pipeline), Some(NONE)) => match pipeline.spec.readers.as_slice() {
            [only] => Ok(Target::Model(find(pool, only.model.as_str())?)),
            _ => Err(Error::invalid(format!(
                "the pipeline `{name}` has several readers; without a detector, ask one of them by model="
            ))),
        },
        (Some(pipeline), Some(detector)) => {
            let stages = Stages::of(&pipeline.spec, pool)?.behind(&find(pool, detector)?);
            stages.check()?;
            Ok(Target::Pipeline { name: name.to_owned(), stages })
        }
        (None, None | Some(NONE)) => Ok(Target::Model(find(pool, name)?)),
        (None, Some(detector)) => {
            let stages = Stages::pair(&find(pool, detector)?, &find(pool, name)?);
            stages.check()?;
            Ok(Target::Pipeline { name: name.to_owned(), stages })
        }
    }
}

/// Finds the regions of each image, and has them read.
pub(super) async fn answer(
    state: &AppState,
    name: &str,
    stages: Stages,
    parameters: &Parameters,
    request: Request,
) -> Result<Response, Refusal> {
    let asked = Asked::of(state, stages.models(), parameters, request)?;
    let modality = asked.modality;
    let (arrived, terms) = (asked.arrived, asked.terms);
    let asks = pipelines::Request {
        arrived,
        deadline: terms.deadline,
        bytes: asked.declared,
        class: terms.class,
        balance: terms.balance,
        options: asked.options.clone(),
    };
    let queue_rows = state.config().pool.queue_rows;
    let mut reserved = stages.clone().reserve(state.pool(), queue_rows, &asks)?;
    let body = read(asked.body, asked.limits, |bytes| reserved.grow(bytes)).await?;
    let Parsed { inputs, shared } = inputs(state, modality, &asked.form, body).await?;
    let n_inputs = inputs.len();

    // Whichever stage is too late, the caller knows of one deadline.
    let late = Error::DeadlineExceeded { deadline: terms.deadline };
    let work = reserved.answer(inputs, shared);
    let scenes = tokio::time::timeout_at((arrived + terms.deadline).into(), work)
        .await
        .map_err(|_| late.clone())?
        .map_err(|Failure { error, item }| match (error, item) {
            (Error::DeadlineExceeded { .. }, _) => Refusal::from(late),
            (error, Some(idx)) => refused(error, modality, idx, n_inputs),
            (error, None) => Refusal::from(error),
        })?;

    let top_k = top_k(&asked.options);
    let entries =
        scenes.iter().map(|scene| Entry::of_scene(scene, &stages, top_k)).collect::<Result<_, _>>()?;
    let by = AnsweredBy::stages(stages.models().map(|model| (model.name().as_str(), model.version())));
    let body = AnswerBody { model: name, by, modality, entries }.to_json()?;
    let balance = terms.balance.unwrap_or_else(|| stages.detector.balance());
    let found = scenes.iter().map(|scene| &scene.found.cost);
    let read = scenes.iter().flat_map(|scene| scene.read.iter().flatten()).map(|answered| &answered.cost);
    respond(body, &ServerTiming::of(found, arrived.elapsed(), terms.class, balance).then(read))
}
