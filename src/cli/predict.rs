//! `lepton predict`: the way of a request, without HTTP.
//!
//! Invariant: one line of JSON for each input, in the order of the inputs, whether it was answered
//! or not.

mod line;
mod progress;

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use tokio::task::JoinHandle;

use self::{line::Line, progress::ProgressLine};
use super::{find_pipelines, logging, repository, start_pool};
use crate::{
    config::{Config, LimitsConfig},
    error::{Amount, Error},
    manifest::ModelName,
    metrics::Metrics,
    pipelines::{self, Scene, Stages},
    pool::{Answered, Claim, Class, Model, ModelPool, Reply},
    repository::{Found, RepositoryError},
    tasks::{Input, Modality, OptionFault, Options, RequestSize, top_k},
};

/// Nobody waits behind these inputs, so none is late.
const NO_DEADLINE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Inputs in the queue for each worker: enough to fill its runs.
const AHEAD: usize = 64;
/// Work that takes longer tells how far it is, that often.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers files without a server.
#[derive(Debug, Args)]
pub(super) struct Predict {
    /// The model or pipeline that answers, by its name
    model: ModelName,
    /// Pictures, or files with a text per line; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// An option of the model, as in the query of a request: --option side=640; may be repeated
    #[arg(short, long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
}

impl Predict {
    pub(super) fn run(self, config: &Config) -> Result<()> {
        let found = repository(config).scan()?;
        let pipelines = find_pipelines(config, |name| {
            let of = |found: &Result<Found, RepositoryError>| match found {
                Ok(found) if found.declared.name == *name => Some(found.declared.task),
                Err(RepositoryError::Model { name: broken, .. }) if broken == name.as_str() => Some(None),
                _ => None,
            };
            found.iter().find_map(of)
        })?;
        let pipeline = pipelines.find(self.model.as_str()).map(|pipeline| &pipeline.spec);
        let is_meant = |name: &str| match pipeline {
            Some(spec) => spec.models().any(|model| model.as_str() == name),
            None => self.model.as_str() == name,
        };
        let mut known: Vec<String> =
            pipelines.iter().map(|pipeline| format!("`{}`", pipeline.name)).collect();
        let mut models = Vec::new();
        for found in found {
            // Those of no interest may be broken.
            let of = match &found {
                Ok(found) => found.declared.name.to_string(),
                Err(RepositoryError::Model { name, .. }) => name.clone(),
                Err(_) => continue,
            };
            if is_meant(&of) {
                models.push(found?.declared);
            }
            known.push(format!("`{of}`"));
        }
        if models.is_empty() {
            known.sort();
            bail!("no model is called `{}`; the models are {}", self.model, known.join(", "));
        }
        let pool = start_pool(config, models, &Metrics::new())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .context("cannot start waiting for answers")?;
        runtime.block_on(self.answer(config, Arc::new(pool), pipeline))
    }

    async fn answer(
        self,
        config: &Config,
        pool: Arc<ModelPool>,
        pipeline: Option<&pipelines::PipelineSpec>,
    ) -> Result<()> {
        wait_until_ready(&pool).await?;
        let target = match pipeline {
            Some(spec) => Target::Pipeline(Arc::new(Stages::of(spec, &pool)?)),
            None => Target::Model(pool.model(self.model.as_str(), None)?),
        };
        let modality = target.modality();
        let options = options(&self.options, &target)?;
        let mut asked = Asked::new(config, pool, target, options);
        for file in &self.files {
            asked.show_at_once = file == Path::new("-") && io::stdin().is_terminal();
            match modality {
                Some(Modality::Image) => {
                    let picture = read_picture(file, &config.limits);
                    asked.ask(Origin { file: file.clone(), line: None }, picture.map(Input::image)).await?;
                }
                Some(Modality::Text) => asked.ask_lines(file, &config.limits).await?,
                other => {
                    let taken = other.map_or("", Modality::plural);
                    bail!("`{}` takes {taken}, which cannot be read from files", self.model)
                }
            }
        }
        asked.finish().await
    }
}

/// What answers.
enum Target {
    Model(Arc<Model>),
    Pipeline(Arc<Stages>),
}

impl Target {
    /// Every model that answers, the first stage first.
    fn models(&self) -> impl Iterator<Item = &Arc<Model>> + Clone {
        let (model, stages) = match self {
            Self::Model(model) => (Some(model), None),
            Self::Pipeline(stages) => (None, Some(stages.models())),
        };
        model.into_iter().chain(stages.into_iter().flatten())
    }

    fn modality(&self) -> Option<Modality> {
        let first = match self {
            Self::Model(model) => model,
            Self::Pipeline(stages) => &stages.detector,
        };
        first.descriptor().map(|task| task.modality)
    }
}

/// Reads what the command line chose among the options of the models that answer.
fn options(chosen: &[String], target: &Target) -> Result<Options> {
    let mut pairs = Vec::new();
    for text in chosen {
        pairs.push(
            text.split_once('=').with_context(|| format!("--option is {text:?}; expected NAME=VALUE"))?,
        );
    }
    let tasks = target.models().filter_map(|model| model.descriptor());
    let options = Options::read(pairs.into_iter(), tasks.clone()).map_err(|fault| match fault {
        OptionFault::Unknown(name) => {
            let names: Vec<&str> = tasks.flat_map(|task| task.options).map(|option| option.name).collect();
            anyhow!("there is no option {name:?}; the model has {}", names.join(", "))
        }
        OptionFault::Twice(name) => anyhow!("the option {name:?} is given twice"),
        OptionFault::Value { name, value, allowed } => {
            anyhow!("the option {name} is {value:?}; allowed is {allowed}")
        }
    })?;
    for task in target.models().filter_map(|model| model.task()) {
        task.check(&options)?;
    }
    Ok(options)
}

async fn wait_until_ready(pool: &ModelPool) -> Result<()> {
    let mut ready = pin!(pool.ready());
    let loaded = match tokio::time::timeout(PATIENCE, &mut ready).await {
        Ok(loaded) => loaded,
        Err(_) => {
            logging::say("loading the model");
            ready.await
        }
    };
    loaded.map_err(|(id, reason)| {
        anyhow!("{reason}").context(format!("the model `{}` could not be loaded", id.name))
    })
}

/// Opens a file, or standard input for `-`.
fn open(file: &Path) -> io::Result<Box<dyn BufRead>> {
    if file == Path::new("-") {
        Ok(Box::new(io::stdin().lock()))
    } else {
        Ok(Box::new(BufReader::new(File::open(file)?)))
    }
}

/// Names what cannot be read; the line that this stands in names the file.
fn unreadable(error: &io::Error) -> Error {
    Error::malformed(format!("cannot read the file: {error}"))
}

fn read_picture(file: &Path, limits: &LimitsConfig) -> Result<bytes::Bytes, Error> {
    let limit = limits.body.0;
    let mut bytes = Vec::new();
    let read = open(file).and_then(|reader| reader.take(limit.saturating_add(1)).read_to_end(&mut bytes));
    read.map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { what: "file bytes", got: Amount::More, limit });
    }
    Ok(bytes.into())
}

/// Reads one line of at most `limits.text` bytes, without its end; `None` at the end of the file.
fn read_line(reader: &mut dyn BufRead, limits: &LimitsConfig) -> io::Result<Option<Result<String, Error>>> {
    let limit = limits.text.0;
    let mut line = Vec::new();
    // A line of the limit's length may still end in a carriage return and a line feed.
    if reader.take(limit.saturating_add(2)).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let ended = line.ends_with(b"\n");
    let text = line.strip_suffix(b"\n").unwrap_or(&line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.len() as u64 > limit {
        if !ended {
            reader.skip_until(b'\n')?;
        }
        return Ok(Some(Err(Error::TooLarge { what: "text bytes", got: Amount::More, limit })));
    }
    let text = str::from_utf8(text).map(str::to_owned).map_err(|error| {
        Error::malformed(format!("the text is not UTF-8: byte {} does not continue it", error.valid_up_to()))
    });
    Ok(Some(text))
}

/// Where an input stands.
struct Origin {
    file: PathBuf,
    line: Option<usize>,
}

/// An answer that is on its way.
enum Pending {
    Model(Reply),
    /// Runs by itself, so that its later stages do not wait until somebody looks.
    Pipeline(JoinHandle<Result<Scene, Error>>),
    Failed(Error),
}

/// An answer, or why there is none.
enum Told {
    Model(Answered),
    Pipeline(Box<Scene>, Arc<Stages>),
}

/// Inputs that were asked and not answered yet, oldest first.
struct Asked {
    pool: Arc<ModelPool>,
    target: Target,
    options: Options,
    queue_rows: usize,
    waiting: VecDeque<(Origin, Pending)>,
    most_waiting: usize,
    /// Somebody types inputs and waits for each answer.
    show_at_once: bool,
    progress: ProgressLine,
    n_answered: usize,
    n_failed: usize,
}

impl Asked {
    fn new(config: &Config, pool: Arc<ModelPool>, target: Target, options: Options) -> Self {
        Self {
            most_waiting: pool.workers() * AHEAD,
            pool,
            target,
            options,
            queue_rows: config.pool.queue_rows,
            waiting: VecDeque::new(),
            show_at_once: false,
            progress: ProgressLine::start(),
            n_answered: 0,
            n_failed: 0,
        }
    }

    async fn ask_lines(&mut self, file: &Path, limits: &LimitsConfig) -> Result<()> {
        let origin = |line| Origin { file: file.to_owned(), line };
        let mut reader = match open(file) {
            Ok(reader) => reader,
            Err(error) => return self.ask(origin(None), Err(unreadable(&error))).await,
        };
        for number in 1.. {
            match read_line(&mut *reader, limits) {
                Ok(Some(Ok(text))) if text.trim().is_empty() => {}
                Ok(Some(text)) => self.ask(origin(Some(number)), text.map(Input::text)).await?,
                Ok(None) => break,
                Err(error) => return self.ask(origin(Some(number)), Err(unreadable(&error))).await,
            }
        }
        Ok(())
    }

    /// Queues an input; prints older answers where the queue has no room.
    async fn ask(&mut self, origin: Origin, input: Result<Input, Error>) -> Result<()> {
        let pending = match input {
            Ok(input) => self.submit(input.with(&self.options)).await?,
            Err(error) => Pending::Failed(error),
        };
        self.waiting.push_back((origin, pending));
        while self.waiting.len() >= self.most_waiting || (self.show_at_once && !self.waiting.is_empty()) {
            self.print_oldest().await?;
        }
        Ok(())
    }

    async fn submit(&mut self, input: Input) -> Result<Pending> {
        loop {
            let submitted = match &self.target {
                Target::Model(model) => self.submit_to(model, &input),
                Target::Pipeline(stages) => self.submit_through(stages, &input),
            };
            match submitted {
                // Room comes back as the oldest are answered.
                Err(Error::Overloaded { .. }) if !self.waiting.is_empty() => self.print_oldest().await?,
                Err(error) => return Ok(Pending::Failed(error)),
                Ok(pending) => return Ok(pending),
            }
        }
    }

    fn submit_to(&self, model: &Arc<Model>, input: &Input) -> Result<Pending, Error> {
        let claim = Claim {
            arrived: Instant::now(),
            deadline: NO_DEADLINE,
            size: input.size(),
            after: Duration::ZERO,
            class: Class::Interactive,
            balance: model.balance(),
        };
        let mut replies = self.pool.reserve(model, claim)?.submit(vec![input.clone()])?;
        let reply = replies.pop().ok_or_else(|| Error::Internal("an input got no reply".to_owned()))?;
        Ok(Pending::Model(reply))
    }

    fn submit_through(&self, stages: &Arc<Stages>, input: &Input) -> Result<Pending, Error> {
        let RequestSize { bytes, .. } = input.size();
        let request = pipelines::Request {
            arrived: Instant::now(),
            deadline: NO_DEADLINE,
            bytes,
            class: Class::Interactive,
            balance: None,
            options: self.options.clone(),
        };
        let reserved = Stages::clone(stages).reserve(&self.pool, self.queue_rows, &request)?;
        let input = input.clone();
        Ok(Pending::Pipeline(tokio::spawn(async move {
            let scenes = reserved.answer(vec![input], 0).await.map_err(|failure| failure.error)?;
            scenes.into_iter().next().ok_or_else(|| Error::Internal("an input got no answer".to_owned()))
        })))
    }

    async fn print_oldest(&mut self) -> Result<()> {
        let Some((origin, pending)) = self.waiting.pop_front() else { return Ok(()) };
        let told = match (pending, &self.target) {
            (Pending::Model(reply), _) => reply.await.map(Told::Model),
            (Pending::Pipeline(work), Target::Pipeline(stages)) => match work.await {
                Ok(scene) => scene.map(|scene| Told::Pipeline(Box::new(scene), Arc::clone(stages))),
                Err(error) => Err(Error::Internal(error.to_string())),
            },
            (Pending::Pipeline(_), Target::Model(_)) => {
                Err(Error::Internal("a pipeline's answer was asked of a model".to_owned()))
            }
            (Pending::Failed(error), _) => Err(error),
        };
        self.n_answered += 1;
        self.n_failed += usize::from(told.is_err());
        let line = serde_json::to_string(&Line::of(&origin, &told, top_k(&self.options)))
            .context("cannot write the answer as JSON")?;
        writeln!(io::stdout(), "{line}").context("cannot print the answer")?;
        self.progress.tell(self.n_answered);
        Ok(())
    }

    /// Prints what is still asked; an error counts the inputs that were not answered.
    async fn finish(mut self) -> Result<()> {
        while !self.waiting.is_empty() {
            self.print_oldest().await?;
        }
        self.progress.end();
        match self.n_failed {
            0 => Ok(()),
            n_failed => {
                bail!("{n_failed} of {} inputs were not answered; their lines say why", self.n_answered)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ByteSize;

    fn limits() -> LimitsConfig {
        LimitsConfig { text: ByteSize(8), body: ByteSize(8), ..Config::default().limits }
    }

    fn lines(mut bytes: &[u8]) -> Vec<Result<String, Error>> {
        std::iter::from_fn(|| read_line(&mut bytes, &limits()).unwrap()).collect()
    }

    #[test]
    fn a_file_holds_a_text_per_line_and_a_bad_one_spoils_no_other() {
        let read = lines(b"12345678\r\n123456789\n\n1234567890123\nb\xff\nlast");
        let too_large = Error::TooLarge { what: "text bytes", got: Amount::More, limit: 8 };
        assert_eq!(read[0], Ok("12345678".to_owned()));
        assert_eq!(read[1], Err(too_large.clone()));
        assert_eq!(read[2], Ok(String::new()));
        assert_eq!(read[3], Err(too_large));
        assert!(matches!(&read[4], Err(Error::Malformed(text)) if text.contains("byte 1")));
        assert_eq!(read[5], Ok("last".to_owned()));
        assert_eq!(read.len(), 6);
    }

    #[test]
    fn a_picture_is_read_up_to_the_limit_of_a_body() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p");
        std::fs::write(&file, b"12345678").unwrap();
        assert_eq!(read_picture(&file, &limits()).unwrap(), &b"12345678"[..]);
        std::fs::write(&file, b"123456789").unwrap();
        assert!(matches!(read_picture(&file, &limits()), Err(Error::TooLarge { limit: 8, .. })));
        let error = read_picture(&dir.path().join("none"), &limits()).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the file: ") && !error.contains("none"), "{error}");
    }
}
