//! A network that does nothing, so that what is measured is all that lies around it.

use std::sync::Arc;

use lepton::{
    engine::{Dim, Engine, EngineError, Port, Session, Signature},
    error::Error,
    manifest::{BatchSpec, Version},
    pool::{Declared, Loaded},
    task::{
        Answer, Bucket, Frame, Input, Prepared, Ranked, Sample, Scored, Supported, Task, Truncated, Weight,
    },
    tensor::{DType, Data, Tensor, Tensors},
};

use super::support::client::Failure;

/// Declares it, under the name of the model behind the text route.
pub(crate) fn declared() -> Result<Declared, Failure> {
    let port = |name: &str| Port {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: vec![Dim::Free("batch".to_owned()), Dim::Fixed(1)],
    };
    let signature = Signature { inputs: vec![port("in")], outputs: vec![port("out")] };
    let row = Tensor::new(vec![1], Data::F32(vec![1.0]))?;
    Ok(Declared {
        name: "sentiment".parse()?,
        version: Version(1),
        description: "does nothing".to_owned(),
        licence: "MIT".to_owned(),
        batch: BatchSpec::default(),
        load: Box::new(move || {
            let task = Echo { row, labels: vec!["positive".into(), "negative".into()] };
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

/// Answers every text with the same scores.
struct Echo {
    row: Tensor,
    labels: Vec<Arc<str>>,
}

impl Task for Echo {
    fn kind(&self) -> &'static str {
        "text-classification"
    }

    fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }

    fn bucket(&self, _: Weight) -> Bucket {
        Bucket::Sure(0)
    }

    fn prepare(&self, input: Input) -> Result<Prepared, Error> {
        let frame =
            Frame::Text { tokens: input.n_bytes(), truncated: Truncated::No, supported: Supported::Unsaid };
        Ok(Prepared { row: vec![self.row.clone()], bucket: 0, frame })
    }

    fn answer(&self, _: Tensors, frame: &Frame) -> Result<Answer, Error> {
        let scored = |label: &Arc<str>| Scored::new(Arc::clone(label), 0.5);
        let scores = Ranked::from(self.labels.iter().map(scored).collect::<Vec<_>>());
        match *frame {
            Frame::Text { tokens, truncated, supported } => {
                Ok(Answer::Text { tokens, truncated, supported, scores })
            }
            _ => Err(Error::Internal("an image's frame for a text".to_owned())),
        }
    }

    fn samples(&self) -> Vec<Sample> {
        vec![Sample { bucket: 0, row: vec![self.row.clone()] }]
    }
}
