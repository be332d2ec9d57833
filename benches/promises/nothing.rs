//! A network that does nothing, so that what is measured is all that lies around it.

use std::sync::Arc;

use lepton::{
    engine::{Dim, Engine, EngineError, Port, Session, Signature},
    error::Error,
    manifest::{BatchSpec, Version},
    pool::{Declared, Loaded},
    tasks::{
        About, Answer, Context, Descriptor, Input, Output, Prepared, ProfileInput, Ranked, RequestSize,
        Scored, ShapeClass, Supported, Task, Truncated, descriptor_of,
    },
    tensor::{DType, Tensor, Tensors},
};

use super::support::client::Failure;

/// Declares it, under the name of the model behind the text route.
pub(crate) fn declared() -> Result<Declared, Failure> {
    let port = |name: &str| Port {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: vec![Dim::Free("batch".to_owned()), Dim::Fixed(1)],
        batch_axis: Some(0),
    };
    let signature = Signature { inputs: vec![port("in")], outputs: vec![port("out")] };
    let (descriptor, row) = (texts()?, Tensor::new::<f32>(vec![1], vec![1.0])?);
    Ok(Declared {
        name: "sentiment".parse()?,
        version: Version(1),
        description: "does nothing".to_owned(),
        licence: "MIT".to_owned(),
        batch: BatchSpec::default(),
        task: Some(descriptor),
        load: Box::new(move || {
            let task = Echo { descriptor, row, labels: vec!["positive".into(), "negative".into()] };
            Ok(Loaded { engine: Arc::new(Nothing(signature)), task: Arc::new(task), precision: None })
        }),
    })
}

struct Nothing(Signature);

impl Engine for Nothing {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn open(&self) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(Same))
    }
}

struct Same;

impl Session for Same {
    fn run(&mut self, batch: Tensors) -> Result<Tensors, EngineError> {
        Ok(batch)
    }
}

/// The task whose place this one takes.
fn texts() -> Result<&'static Descriptor, Failure> {
    descriptor_of("text-classification").ok_or_else(|| "there is no such task".into())
}

/// Answers every text with the same scores.
struct Echo {
    descriptor: &'static Descriptor,
    row: Tensor,
    labels: Vec<Arc<str>>,
}

impl Task for Echo {
    fn descriptor(&self) -> &'static Descriptor {
        self.descriptor
    }

    fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }

    fn shape_class(&self, _: &RequestSize) -> ShapeClass {
        ShapeClass::Known(0)
    }

    fn preprocess(&self, input: Input) -> Result<Prepared, Error> {
        let (tokens, truncated, supported) = (input.n_bytes(), Truncated::No, Supported::Unsaid);
        let about = About::Text { tokens, truncated, supported };
        Ok(Prepared::new(vec![self.row.clone()], 0, Context::new(about)))
    }

    fn postprocess(&self, _: Tensors, context: &Context) -> Result<Answer, Error> {
        let scored = |label: &Arc<str>| Scored::new(Arc::clone(label), 0.5);
        let scores = Ranked::from(self.labels.iter().map(scored).collect::<Vec<_>>());
        Ok(Answer { output: Output::Classes(scores), about: *context.get()? })
    }

    fn profile_inputs(&self) -> Vec<ProfileInput> {
        vec![ProfileInput { shape: 0, row: vec![self.row.clone()] }]
    }
}
