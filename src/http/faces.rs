//! Faces found by one model and read by another: ordinary async code over two models.
//!
//! Invariant: before the body is read, the classifier owes the request its time and the detector has room
//! for it, so that what is admitted is expected to be answered in time by both. Of a picture only the faces
//! come out of the detector, no larger than the classifier takes them, and they count as its queued bytes.

use std::sync::Arc;

use axum::{extract::Request, response::Response};

use super::{
    AppState,
    body::read,
    extract::Parameters,
    predict::{AnswerBody, Asked, Parsed, Takes, all, find, inputs, refused, respond, side_of},
    problem::Refusal,
    timing::ServerTiming,
    vision::{self, ImageBody},
};
use crate::{
    error::Error,
    metrics::Cost,
    pool::{Answered, Claim, Model, Reply, Slot},
    task::{Answer, Crop, Cut, Face, Input, Look, Ranked, Weight},
};

/// Faces of one picture that are classified at most, the surest; the others are answered without a label.
const MOST_OF_ONE: usize = 64;

/// Faces of one request that are classified at most. Many pictures share them.
const MOST_OF_ALL: usize = 1024;

/// What `detector=` says where faces are not to be looked for.
const NONE: &str = "none";

/// The task of a model that finds faces.
const FINDS: &str = "face-detection";

/// The detector that the caller asks for, or the configured one where the caller asks for no model; nothing
/// where pictures are to be answered whole.
pub(super) fn detector(state: &AppState, parameters: &Parameters) -> Result<Option<Arc<Model>>, Error> {
    let pool = state.pool();
    let found = match (&parameters.detector, &parameters.model) {
        (Some(name), _) if name == NONE => None,
        (Some(name), _) => Some(find(pool, name)?),
        (None, Some(_)) => None,
        // What is configured by default need not be there.
        (None, None) => {
            state.config().models.detector.0.as_ref().and_then(|name| pool.model(name.as_str(), None).ok())
        }
    };
    match found {
        Some(model) if model.task().is_some_and(|task| task.kind() != FINDS) => Err(Error::invalid(format!(
            "the model `{}` finds no faces; ask a detector, or {NONE}",
            model.name()
        ))),
        found => Ok(found),
    }
}

/// The models that a request is passed through.
pub(super) struct Stages<'a> {
    pub(super) detector: &'a Arc<Model>,
    pub(super) classifier: &'a Arc<Model>,
}

/// Finds the faces of each image, and classifies them.
pub(super) async fn classify(
    state: &AppState,
    Stages { detector, classifier }: Stages<'_>,
    parameters: &Parameters,
    request: Request,
) -> Result<Response, Refusal> {
    let side = side_of(detector, parameters.side)?;
    let asked = Asked::of(state, Takes::Images, parameters, request)?;
    let (arrived, terms) = (asked.arrived, asked.terms);
    let deadline = terms.deadline;

    // What comes last is promised first: the detector has to answer so much sooner.
    let claim = asked.claim(classifier, Weight::default());
    let balance = claim.balance;
    let mut later = state.pool().hold(classifier, claim)?;
    let crop = crop_of(classifier)?;
    let claim = asked.claim(detector, Weight { bytes: asked.declared, side });
    let mut slot = state.pool().reserve(detector, Claim { after: later.takes(), ..claim })?;

    let body = read(asked.body, asked.limits, |bytes| slot.grow(bytes)).await?;
    let Parsed { inputs, shared } = inputs(state, Takes::Images, &asked.form, body).await?;
    // One crowd leaves half of the queue to others, also where the queue is short.
    let most_of_all = MOST_OF_ALL.min(state.config().pool.queue_rows / 2);
    let most = (most_of_all / inputs.len().max(1)).clamp(1, MOST_OF_ONE);
    let look = Look { side, cut: Some(Cut { crop: Arc::clone(crop), most }) };
    let looked_at = inputs.into_iter().map(|input| input.looked_at(look.clone())).collect();
    let replies = slot.submit_slices(looked_at, shared)?;

    let work = async {
        let (found, faces) = found(replies, &mut later).await?;
        let read = match faces.is_empty() {
            true => Vec::new(),
            false => all(later.submit(faces)?, vision::LIST).await?,
        };
        Ok::<_, Refusal>((found, read))
    };
    // Whichever stage is too late, the caller knows of one deadline.
    let late = Error::DeadlineExceeded { deadline };
    let (found, read) = tokio::time::timeout_at((arrived + deadline).into(), work)
        .await
        .map_err(|_| late.clone())?
        .map_err(|refusal| if refusal.is_late() { Refusal::from(late) } else { refusal })?;

    let body =
        body_of(Stages { detector, classifier }, &found, &read, parameters.top_k.unwrap_or(usize::MAX))?;
    let costs = found.iter().map(|scene| &scene.cost);
    let timing = ServerTiming::of(costs, arrived.elapsed(), terms.class, balance)
        .then(read.iter().map(|answered| &answered.cost));
    respond(body, &timing)
}

/// How faces are cut out for a classifier.
fn crop_of(classifier: &Model) -> Result<&Arc<Crop>, Error> {
    classifier.task().and_then(|task| task.crop()).ok_or_else(|| {
        Error::invalid(format!(
            "the model `{}` classifies no faces; ask it with detector={NONE}",
            classifier.name()
        ))
    })
}

/// A picture in which faces were looked for, and what that cost.
struct Scene {
    size: (u32, u32),
    faces: Vec<Face>,
    /// How many of them, the surest, were classified.
    n_cut: usize,
    cost: Cost,
}

/// Waits for the faces of every picture. What is cut out of one counts as the classifier's queued bytes as
/// soon as it is there. Gives the pictures, and the cuts of all of them in order.
async fn found(replies: Vec<Reply>, later: &mut Slot) -> Result<(Vec<Scene>, Vec<Input>), Refusal> {
    let n_replies = replies.len();
    let (mut scenes, mut cuts) = (Vec::with_capacity(n_replies), Vec::new());
    for (idx, reply) in replies.into_iter().enumerate() {
        let Answered { answer, cost } =
            reply.await.map_err(|error| refused(error, vision::LIST, idx, n_replies))?;
        let Answer::Faces { width, height, mut faces } = answer else {
            return Err(Error::Internal("a detector answered no faces".to_owned()).into());
        };
        let n_before = cuts.len();
        cuts.extend(faces.iter_mut().filter_map(|face| face.cut.take()).map(Input::Cut));
        later.grow(cuts[n_before..].iter().map(Input::n_bytes).sum())?;
        scenes.push(Scene { size: (width, height), faces, n_cut: cuts.len() - n_before, cost });
    }
    Ok((scenes, cuts))
}

fn body_of(
    Stages { detector, classifier }: Stages<'_>,
    scenes: &[Scene],
    read: &[Answered],
    top_k: usize,
) -> Result<Vec<u8>, Error> {
    let mut read = read.iter().map(scores_of).collect::<Result<Vec<&Ranked>, _>>()?.into_iter();
    let images = scenes.iter().map(|scene| {
        let classified: Vec<&Ranked> = read.by_ref().take(scene.n_cut).collect();
        ImageBody::read(scene.size, &scene.faces, &classified, top_k)
    });
    AnswerBody {
        model: classifier.name().as_str(),
        version: classifier.version(),
        detector: Some(detector.name().as_str()),
        images: images.collect(),
        results: Vec::new(),
    }
    .to_json()
}

fn scores_of(answered: &Answered) -> Result<&Ranked, Error> {
    match &answered.answer {
        Answer::Image { scores, .. } => Ok(scores),
        _ => Err(Error::Internal("a classifier answered no scores".to_owned())),
    }
}
