//! The way of every request to a model or a pipeline: head, reservation, body, inputs, replies, answer.
//!
//! Invariant: nothing of a body is read before every model that answers has room and time for it, and whatever ends this
//! future, the caller's leaving included, drops the reservations or the replies and with them the work.

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

use super::{
    AppState,
    body::{BodyLimits, declared_length, read},
    extract::{Form, Parameters, image_form, text_form},
    observe::Arrival,
    problem::{Item, Refusal, quote},
    stages,
    terms::Terms,
    text,
    timing::ServerTiming,
    vision,
};
use crate::{
    api::{AnswerBody, Entry},
    error::Error,
    pipelines::Stages,
    pool::{Answered, Claim, Model, ModelPool, Reply, end_round},
    tasks::{Input, Modality, Options, RequestSize, top_k},
};

/// `POST /v1/vision/classify`
pub(super) async fn vision(State(state): State<AppState>, request: Request) -> Result<Response, Refusal> {
    let parameters = Parameters::parse(request.uri(), &["model", "detector"])?;
    let name = parameters.model.as_deref().unwrap_or(state.config().models.vision.as_str());
    let target = stages::target(&state, name, parameters.detector.as_deref())?;
    target.require(Modality::Image)?;
    target.answer(&state, &parameters, request).await
}

/// `POST /v1/text/sentiment`
pub(super) async fn sentiment(State(state): State<AppState>, request: Request) -> Result<Response, Refusal> {
    let parameters = Parameters::parse(request.uri(), &["model"])?;
    let name = parameters.model.as_deref().unwrap_or(state.config().models.sentiment.as_str());
    let target = Target::Model(find(state.pool(), name)?);
    target.require(Modality::Text)?;
    target.answer(&state, &parameters, request).await
}

/// `POST /v1/models/{name}/predict`
pub(super) async fn by_name(
    State(state): State<AppState>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path(name) = name.map_err(|_| Error::malformed("the model's name in the path is not UTF-8"))?;
    let parameters = Parameters::parse(request.uri(), &[])?;
    stages::target(&state, &name, None)?.answer(&state, &parameters, request).await
}

/// Finds a model; a refusal repeats the caller's own word escaped and cut.
pub(super) fn find(pool: &ModelPool, name: &str) -> Result<Arc<Model>, Error> {
    pool.model(name, None).map_err(|error| match error {
        Error::ModelNotFound { name, known } => Error::ModelNotFound { name: quote(&name), known },
        other => other,
    })
}

/// What answers a request.
pub(super) enum Target {
    Model(Arc<Model>),
    /// Several models under one name.
    Pipeline {
        name: String,
        stages: Stages,
    },
}

impl Target {
    /// What the first model takes.
    fn modality(&self) -> Option<Modality> {
        let first = match self {
            Self::Model(model) => model,
            Self::Pipeline { stages, .. } => &stages.detector,
        };
        first.descriptor().map(|task| task.modality)
    }

    /// Refuses a target that takes something else than the path is for.
    fn require(&self, wanted: Modality) -> Result<(), Error> {
        let Some(found) = self.modality().filter(|found| *found != wanted) else { return Ok(()) };
        let name = match self {
            Self::Model(model) => model.name().as_str(),
            Self::Pipeline { name, .. } => name,
        };
        Err(Error::invalid(format!("the model `{name}` takes {found}; this path takes {wanted}")))
    }

    async fn answer(
        self,
        state: &AppState,
        parameters: &Parameters,
        request: Request,
    ) -> Result<Response, Refusal> {
        match self {
            Self::Model(model) => predict(state, &model, parameters, request).await,
            Self::Pipeline { name, stages } => {
                stages::answer(state, &name, stages, parameters, request).await
            }
        }
    }
}

/// What a request's head asks for, whichever model answers, and its body.
pub(super) struct Asked {
    pub(super) arrived: Instant,
    pub(super) terms: Terms,
    pub(super) modality: Modality,
    pub(super) form: Form,
    pub(super) limits: BodyLimits,
    pub(super) options: Options,
    /// Bytes of the body, where its head tells.
    pub(super) declared: Option<usize>,
    pub(super) body: Body,
}

impl Asked {
    /// Reads the head of a request that `models` answer, the first of them first.
    ///
    /// While one of them is not ready this is refused whatever the request says, so that nobody takes a refusal for
    /// lasting that a retry would not meet.
    pub(super) fn of<'m>(
        state: &AppState,
        models: impl Iterator<Item = &'m Arc<Model>> + Clone + 'm,
        parameters: &Parameters,
        request: Request,
    ) -> Result<Self, Refusal> {
        if let Some(error) = models.clone().find_map(|model| model.unavailable()) {
            return Err(error.into());
        }
        let config = state.config();
        let arrived = request.extensions().get().map_or_else(Instant::now, |Arrival(at)| *at);
        let tasks = models.clone().filter_map(|model| model.descriptor());
        let unknown = || Error::Internal("a model is ready whose task nobody knows".to_owned());
        let modality = tasks.clone().next().ok_or_else(unknown)?.modality;
        let options = parameters.options(tasks)?;
        if !options.is_empty() {
            models.clone().filter_map(|model| model.task()).try_for_each(|task| task.check(&options))?;
        }
        let terms = Terms::of(request.headers(), parameters, &config.pool)?;
        let form = match modality {
            Modality::Image => image_form(request.headers())?,
            Modality::Text => text_form(request.headers())?,
            Modality::Pair | Modality::Tensors => return Err(no_form(modality).into()),
        };
        let (bytes, timeout) = (config.limits.body.0, config.server.body_timeout);
        let uploads = state.uploads().clone();
        let limits = BodyLimits { bytes, timeout, arrived, deadline: terms.deadline, uploads };
        let body = request.into_body();
        let declared = declared_length(&body, limits.bytes)?;
        Ok(Self { arrived, terms, modality, form, limits, options, declared, body })
    }
}

/// Why a model is not asked here.
fn no_form(modality: Modality) -> Error {
    Error::invalid(format!("this path takes images or texts; the model takes {modality}"))
}

async fn predict(
    state: &AppState,
    model: &Arc<Model>,
    parameters: &Parameters,
    request: Request,
) -> Result<Response, Refusal> {
    let asked = Asked::of(state, std::iter::once(model), parameters, request)?;
    let modality = asked.modality;
    let Asked { arrived, terms: Terms { deadline, class, balance }, options, .. } = &asked;
    let (arrived, deadline, class) = (*arrived, *deadline, *class);
    let balance = balance.unwrap_or_else(|| model.balance());
    let size = RequestSize { bytes: asked.declared, options: options.clone() };
    let claim = Claim { arrived, deadline, size, after: Duration::ZERO, class, balance };
    let mut slot = state.pool().reserve(model, claim)?;
    let body = read(asked.body, asked.limits, |bytes| slot.grow(bytes)).await?;
    let Parsed { mut inputs, shared } = inputs(state, modality, &asked.form, body).await?;
    if !asked.options.is_empty() {
        inputs = inputs.into_iter().map(|input| input.with(&asked.options)).collect();
    }
    let replies = slot.submit_slices(inputs, shared)?;
    let answered = tokio::time::timeout_at((arrived + deadline).into(), all(replies, modality))
        .await
        .map_err(|_| Error::DeadlineExceeded { deadline })??;

    let top_k = top_k(&asked.options);
    let body = AnswerBody {
        model: model.name().as_str(),
        by: model.version().into(),
        modality,
        entries: answered.iter().map(|answered| Entry::new(&answered.answer, top_k)).collect(),
    }
    .to_json()?;
    let costs = answered.iter().map(|answered| &answered.cost);
    respond(body, &ServerTiming::of(costs, arrived.elapsed(), class, balance))
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

/// Cuts a body into its inputs.
pub(super) async fn inputs(
    state: &AppState,
    modality: Modality,
    form: &Form,
    body: Bytes,
) -> Result<Parsed, Refusal> {
    if body.len() > SHORT && !matches!(form, Form::Image) {
        end_round();
    }
    let limits = &state.config().limits;
    match modality {
        Modality::Image => Ok(Parsed::of(&body, vision::inputs(body.clone(), form, limits).await?)),
        // Every text is copied out of the body, or takes it over.
        Modality::Text => Ok(Parsed { inputs: text::inputs(body, form, limits).await?, shared: 0 }),
        Modality::Pair | Modality::Tensors => Err(no_form(modality).into()),
    }
}

/// Waits for every reply. The first fault refuses the whole request, and drops the other replies.
async fn all(replies: Vec<Reply>, modality: Modality) -> Result<Vec<Answered>, Refusal> {
    let n_replies = replies.len();
    let mut answered = Vec::with_capacity(n_replies);
    for (idx, reply) in replies.into_iter().enumerate() {
        answered.push(reply.await.map_err(|error| refused(error, modality, idx, n_replies))?);
    }
    Ok(answered)
}

/// Why a request was not answered, with the one of its `n` items that is to blame.
pub(super) fn refused(error: Error, modality: Modality, idx: usize, n: usize) -> Refusal {
    match n {
        1 => Refusal::from(error),
        _ => Refusal::from(error).at(Item { list: modality.plural(), idx }),
    }
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
