//! The way of every request to a model: head, slot, body, inputs, replies, answer.
//!
//! Invariant: nothing of a body is read before a slot is held, and whatever ends this future, the
//! caller's leaving included, drops the slot or the replies and with them the work.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderName, HeaderValue, header::CONTENT_TYPE},
    response::Response,
};
use bytes::Bytes;
use serde::Serialize;

use super::{
    AppState,
    body::{BodyLimits, declared_length, read},
    extract::{Form, Parameters, image_form, text_form},
    faces::{self, Stages},
    observe::Arrival,
    problem::{Item, Refusal, quote},
    terms::Terms,
    text::{self, TextBody},
    timing::ServerTiming,
    vision::{self, ImageBody},
    written::{push_json, push_text},
};
use crate::{
    error::Error,
    manifest::Version,
    pool::{Answered, Claim, Model, ModelPool, Reply, end_round},
    task::{Answer, Input, Look, Weight},
};

/// `POST /v1/vision/classify`
pub(super) async fn vision(State(state): State<AppState>, request: Request) -> Result<Response, Refusal> {
    let parameters =
        Parameters::parse(request.uri(), &["model", "detector", "side", "top_k", "class", "balance"])?;
    let name = parameters.model.as_deref().unwrap_or(state.config().models.vision.as_str());
    let model = find(state.pool(), name)?;
    require(&model, Takes::Images)?;
    match faces::detector(&state, &parameters)? {
        Some(detector) => {
            let stages = Stages { detector: &detector, classifier: &model };
            faces::classify(&state, stages, &parameters, request).await
        }
        None => predict(&state, &model, Takes::Images, &parameters, request).await,
    }
}

/// `POST /v1/text/sentiment`
pub(super) async fn sentiment(State(state): State<AppState>, request: Request) -> Result<Response, Refusal> {
    let parameters = Parameters::parse(request.uri(), &["model", "top_k", "class", "balance"])?;
    let name = parameters.model.as_deref().unwrap_or(state.config().models.sentiment.as_str());
    let model = find(state.pool(), name)?;
    require(&model, Takes::Texts)?;
    predict(&state, &model, Takes::Texts, &parameters, request).await
}

/// `POST /v1/models/{name}/predict`
pub(super) async fn by_name(
    State(state): State<AppState>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path(name) = name.map_err(|_| Error::malformed("the model's name in the path is not UTF-8"))?;
    let parameters = Parameters::parse(request.uri(), &["side", "top_k", "class", "balance"])?;
    let model = find(state.pool(), &name)?;
    // Until a model is loaded nobody knows what it takes, and its slot is refused in any case.
    let takes = takes(&model)?.unwrap_or(Takes::Images);
    predict(&state, &model, takes, &parameters, request).await
}

/// Finds a model; a refusal repeats the caller's own word escaped and cut.
pub(super) fn find(pool: &ModelPool, name: &str) -> Result<Arc<Model>, Error> {
    pool.model(name, None).map_err(|error| match error {
        Error::ModelNotFound { name, known } => Error::ModelNotFound { name: quote(&name), known },
        other => other,
    })
}

/// What a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Images,
    Texts,
}

impl Takes {
    fn list(self) -> &'static str {
        match self {
            Self::Images => vision::LIST,
            Self::Texts => text::LIST,
        }
    }
}

/// What `model` takes; `None` until it is loaded.
fn takes(model: &Model) -> Result<Option<Takes>, Error> {
    let Some(task) = model.task() else { return Ok(None) };
    match task.kind() {
        "image-classification" | "face-detection" => Ok(Some(Takes::Images)),
        "text-classification" => Ok(Some(Takes::Texts)),
        other => Err(Error::Internal(format!("no route knows the task {other}"))),
    }
}

fn require(model: &Model, wanted: Takes) -> Result<(), Error> {
    match takes(model)? {
        Some(found) if found != wanted => Err(Error::invalid(format!(
            "the model `{}` takes {}; this path takes {}",
            model.name(),
            found.list(),
            wanted.list()
        ))),
        _ => Ok(()),
    }
}

/// The long side that was asked for, if `model` has it; until a model is loaded nobody knows.
pub(super) fn side_of(model: &Model, side: Option<u32>) -> Result<Option<u32>, Error> {
    let (Some(side), Some(task)) = (side, model.task()) else { return Ok(side) };
    match task.sides() {
        [] => Err(Error::malformed(format!(
            "side is {side}, but the model `{}` lets nobody choose it: leave it out",
            model.name()
        ))),
        sides if !sides.contains(&side) => {
            let allowed = sides.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            Err(Error::malformed(format!("side is {side}; allowed are {allowed}")))
        }
        _ => Ok(Some(side)),
    }
}

/// What a request's head asks for, whichever model answers, and its body.
pub(super) struct Asked {
    pub(super) arrived: Instant,
    pub(super) terms: Terms,
    pub(super) form: Form,
    pub(super) limits: BodyLimits,
    /// Bytes of the body; 0 where it does not say.
    pub(super) declared: usize,
    pub(super) body: Body,
}

impl Asked {
    pub(super) fn of(
        state: &AppState,
        takes: Takes,
        parameters: &Parameters,
        request: Request,
    ) -> Result<Self, Refusal> {
        let config = state.config();
        let arrived = request.extensions().get().map_or_else(Instant::now, |Arrival(at)| *at);
        let terms = Terms::of(request.headers(), parameters, &config.pool)?;
        let form = match takes {
            Takes::Images => image_form(request.headers())?,
            Takes::Texts => text_form(request.headers())?,
        };
        let (bytes, timeout) = (config.limits.body.0, config.server.body_timeout);
        let uploads = state.uploads().clone();
        let limits = BodyLimits { bytes, timeout, arrived, deadline: terms.deadline, uploads };
        let body = request.into_body();
        let declared = declared_length(&body, limits.bytes)?.unwrap_or(0);
        Ok(Self { arrived, terms, form, limits, declared, body })
    }

    /// The claim on `model`, which is asked first and alone, for a body of that weight.
    pub(super) fn claim(&self, model: &Model, weight: Weight) -> Claim {
        Claim {
            arrived: self.arrived,
            deadline: self.terms.deadline,
            weight,
            after: Duration::ZERO,
            class: self.terms.class,
            balance: self.terms.balance.unwrap_or_else(|| model.balance()),
        }
    }
}

async fn predict(
    state: &AppState,
    model: &Arc<Model>,
    takes: Takes,
    parameters: &Parameters,
    request: Request,
) -> Result<Response, Refusal> {
    let side = side_of(model, parameters.side)?;
    let asked = Asked::of(state, takes, parameters, request)?;
    let claim = asked.claim(model, Weight { bytes: asked.declared, side });
    let mut slot = state.pool().reserve(model, claim)?;
    let body = read(asked.body, asked.limits, |bytes| slot.grow(bytes)).await?;
    let Parsed { mut inputs, shared } = inputs(state, takes, &asked.form, body).await?;
    if side.is_some() {
        inputs = inputs.into_iter().map(|input| input.looked_at(Look { side, cut: None })).collect();
    }
    let replies = slot.submit_slices(inputs, shared)?;
    let Terms { deadline, class, .. } = asked.terms;
    let answered = tokio::time::timeout_at((asked.arrived + deadline).into(), all(replies, takes.list()))
        .await
        .map_err(|_| Error::DeadlineExceeded { deadline })??;

    let body = body_of(model, &answered, parameters.top_k.unwrap_or(usize::MAX))?;
    let costs = answered.iter().map(|answered| &answered.cost);
    let timing = ServerTiming::of(costs, asked.arrived.elapsed(), class, claim.balance);
    respond(body, &timing)
}

/// Bytes that are cut into inputs in less than the time for which workers may be left asleep.
const SHORT: usize = 16 << 10;

/// The inputs of a body, and the memory that they keep alive together.
pub(super) struct Parsed {
    pub(super) inputs: Vec<Input>,
    /// Bytes of the body that they are slices of, and of those beside it; 0 where each owns its memory.
    pub(super) shared: usize,
}

impl Parsed {
    fn of(body: &Bytes, inputs: Vec<Input>) -> Self {
        let slices = body.as_ptr_range();
        let is_slice = |bytes: &Bytes| slices.contains(&bytes.as_ptr());
        let encoded = || inputs.iter().filter_map(Input::encoded);
        let is_whole = inputs.len() == 1 && encoded().any(|bytes| bytes.len() == body.len());
        let shared = match !is_whole && encoded().any(is_slice) {
            // Strings with escapes were copied out of it.
            true => body.len() + encoded().filter(|bytes| !is_slice(bytes)).map(Bytes::len).sum::<usize>(),
            false => 0,
        };
        Self { inputs, shared }
    }
}

pub(super) async fn inputs(
    state: &AppState,
    takes: Takes,
    form: &Form,
    body: Bytes,
) -> Result<Parsed, Refusal> {
    if body.len() > SHORT && !matches!(form, Form::Image) {
        end_round();
    }
    let limits = &state.config().limits;
    match takes {
        Takes::Images => Ok(Parsed::of(&body, vision::inputs(body.clone(), form, limits).await?)),
        // Every text is copied out of the body, or takes it over.
        Takes::Texts => Ok(Parsed { inputs: text::inputs(body, form, limits).await?, shared: 0 }),
    }
}

/// Waits for every reply. The first fault refuses the whole request, and drops the other replies.
pub(super) async fn all(replies: Vec<Reply>, list: &'static str) -> Result<Vec<Answered>, Refusal> {
    let n_replies = replies.len();
    let mut answered = Vec::with_capacity(n_replies);
    for (idx, reply) in replies.into_iter().enumerate() {
        answered.push(reply.await.map_err(|error| refused(error, list, idx, n_replies))?);
    }
    Ok(answered)
}

/// Why a request was not answered, with the one of its `n` items that is to blame.
pub(super) fn refused(error: Error, list: &'static str, idx: usize, n: usize) -> Refusal {
    match n {
        1 => Refusal::from(error),
        _ => Refusal::from(error).at(Item { list, idx }),
    }
}

/// A whole answer: which model, and one entry per item of the request, in its order.
#[derive(Serialize)]
pub(super) struct AnswerBody<'a> {
    pub(super) model: &'a str,
    pub(super) version: Version,
    /// The model that found the faces, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detector: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) images: Vec<ImageBody<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) results: Vec<TextBody<'a>>,
}

/// Bytes that an answer about one text rarely exceeds.
const SHORT_ANSWER: usize = 512;

impl AnswerBody<'_> {
    pub(super) fn to_json(&self) -> Result<Vec<u8>, Error> {
        // Texts are the small requests, of which the answer is a part that counts.
        let is_of_texts = self.images.is_empty() && self.detector.is_none() && !self.results.is_empty();
        if is_of_texts { Ok(self.json_of_texts()) } else { self.serialized() }
    }

    fn json_of_texts(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(SHORT_ANSWER);
        json.extend_from_slice(b"{\"model\":");
        push_text(&mut json, self.model);
        json.extend_from_slice(b",\"version\":");
        push_json(&mut json, &self.version);
        json.extend_from_slice(b",\"results\":[");
        for (idx, result) in self.results.iter().enumerate() {
            if idx > 0 {
                json.push(b',');
            }
            result.push(&mut json);
        }
        json.extend_from_slice(b"]}");
        json
    }

    fn serialized(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(|error| Error::Internal(format!("cannot write the answer: {error}")))
    }
}

fn body_of(model: &Model, answered: &[Answered], top_k: usize) -> Result<Vec<u8>, Error> {
    let (mut images, mut results) = (Vec::new(), Vec::new());
    for Answered { answer, .. } in answered {
        match answer {
            Answer::Image { width, height, region, scores } => {
                images.push(ImageBody::whole((*width, *height), *region, scores, top_k));
            }
            Answer::Faces { width, height, faces } => {
                images.push(ImageBody::found((*width, *height), faces));
            }
            Answer::Text { tokens, truncated, supported, scores } => {
                results.push(TextBody::new(*tokens, *truncated, scores, top_k).telling(*supported));
            }
        }
    }
    AnswerBody { model: model.name().as_str(), version: model.version(), detector: None, images, results }
        .to_json()
}

static SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

pub(super) fn respond(body: Vec<u8>, timing: &ServerTiming) -> Result<Response, Refusal> {
    let timing = HeaderValue::try_from(timing.text())
        .map_err(|error| Error::Internal(format!("cannot write Server-Timing: {error}")))?;
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(&SERVER_TIMING, timing);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Ranked, Scored, Truncated};

    #[test]
    fn answers_about_texts_are_written_as_they_serialise() {
        let ranked = Ranked::from(vec![Scored::new("good", 0.7)]);
        let result = || TextBody::new(3, Truncated::No, &ranked, usize::MAX);
        for results in [vec![result()], vec![result(), result()]] {
            let images = Vec::new();
            let body = AnswerBody { model: "mood", version: Version(2), detector: None, images, results };
            assert_eq!(body.to_json().unwrap(), body.serialized().unwrap());
        }
    }

    proptest::proptest! {
        #[test]
        fn inputs_count_all_the_memory_that_they_keep_alive(
            images in proptest::collection::vec("[A-Za-z0-9]{1,40}(\\\\/)?", 1..6), blanks in 0usize..400,
        ) {
            let list = images.iter().map(|image| format!("\"{image}\"")).collect::<Vec<_>>().join(",");
            let json = format!("{{\"images\":[{list}]{}}}", " ".repeat(blanks));
            let part = |image: &String| format!("--X\r\ncontent-disposition: form-data; name=image\r\n\r\n{image}\r\n");
            let form: String =
                std::iter::once(" ".repeat(blanks) + "\r\n").chain(images.iter().map(part)).chain(["--X--".to_owned()]).collect();
            let limits = crate::config::Config::default().limits;
            for (body, kind) in [(json, Form::Json), (form, Form::Multipart("X".to_owned())), (images[0].clone(), Form::Image)] {
                let body = Bytes::from(body);
                let read = vision::inputs(body.clone(), &kind, &limits);
                let inputs = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(read).unwrap();
                let Parsed { inputs, shared } = Parsed::of(&body, inputs);
                let (range, mut alive) = (body.as_ptr_range(), 0);
                for bytes in inputs.iter().filter_map(Input::encoded) {
                    alive += if range.contains(&bytes.as_ptr()) { 0 } else { bytes.len() };
                }
                if inputs.iter().filter_map(Input::encoded).any(|bytes| range.contains(&bytes.as_ptr())) {
                    alive += body.len();
                }
                let counted = if shared > 0 { shared } else { inputs.iter().map(Input::n_held).sum() };
                proptest::prop_assert!(counted >= alive, "{counted} of {alive}");
                proptest::prop_assert!(counted <= body.len() + alive, "{counted} of {alive}");
            }
        }
    }
}
