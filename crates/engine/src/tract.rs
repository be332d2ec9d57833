//! tract behind [`Engine`] and [`Session`]; the only room that names tract.
//!
//! Invariant: every run starts from fresh state. A run goes through `plan.run()`, which makes its own
//! state and drops it; a kept state would carry one caller's recurrence into the next caller's answer.

mod cache;
mod census;
mod conv;
mod ending;
mod footprint;
mod network;
mod plans;
mod recurrent;
mod regions;
mod rows;
mod taken;
mod values;
mod windows;

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Arc,
};

use self::{
    census::{LIMITS, Limits},
    network::{Network, refused},
    plans::Planned,
    taken::Taken,
};
use crate::{
    Artifact, Batching, Ending, Engine, EngineError, EngineLoader, KernelUse, LoadOptions, Session,
    Signature,
    kernels::{Form, Precision},
    tensor::Tensors,
};

/// Reads ONNX files.
pub(crate) struct TractLoader;

impl EngineLoader for TractLoader {
    fn name(&self) -> &'static str {
        "tract"
    }

    fn reads(&self, artifact: &Artifact<'_>) -> bool {
        artifact.file.extension().is_some_and(|extension| extension == "onnx")
    }

    fn supports(&self, precision: Precision) -> bool {
        precision == Precision::F32 || Form::best(precision).is_some()
    }

    fn load(&self, artifact: &Artifact<'_>, options: LoadOptions) -> Result<Arc<dyn Engine>, EngineError> {
        let form = Form::best(options.precision).or_else(|| Form::best(Precision::F32));
        let origin = Origin { bytes: artifact.bytes, folder: artifact.folder, batching: options.batching };
        Ok(Arc::new(TractEngine::load_within(origin, form, LIMITS)?))
    }
}

/// What a network is read from.
#[derive(Clone, Copy)]
struct Origin<'a> {
    bytes: &'a [u8],
    /// Where weights lie that the file keeps in other files.
    folder: Option<&'a Path>,
    batching: Batching,
}

/// A network that tract runs. Weights and plans are shared by all its sessions.
pub struct TractEngine {
    network: Arc<Planned>,
}

impl std::fmt::Debug for TractEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TractEngine").field("signature", self.network.signature()).finish_non_exhaustive()
    }
}

impl TractEngine {
    /// Reads an ONNX file. Weights that the file keeps in other files are read from below `folder`;
    /// without a folder such a file is refused.
    ///
    /// # Errors
    /// [`EngineError::Load`] where the bytes are broken, demand too much or cannot be planned;
    /// [`EngineError::Unsupported`] where they are sound but not served. It never panics.
    pub fn load(bytes: &[u8], folder: Option<&Path>) -> Result<Self, EngineError> {
        Self::load_with(bytes, folder, Form::best(Precision::F32))
    }

    /// As [`TractEngine::load`], with the kernels of one form, or with none of them.
    ///
    /// # Errors
    /// As [`TractEngine::load`].
    pub fn load_with(bytes: &[u8], folder: Option<&Path>, form: Option<Form>) -> Result<Self, EngineError> {
        Self::load_within(Origin { bytes, folder, batching: Batching::Required }, form, LIMITS)
    }

    fn load_within(origin: Origin<'_>, form: Option<Form>, limits: Limits) -> Result<Self, EngineError> {
        let mut network = unwound(|| Network::read(origin, limits))?;
        if let Some(form) = form {
            recurrent::take(&mut network.model, form);
        }
        Ok(Self { network: Arc::new(Planned::new(network, Taken::new(form))?) })
    }
}

impl Engine for TractEngine {
    fn signature(&self) -> &Signature {
        self.network.signature()
    }

    fn ending(&self, output: usize) -> Ending {
        self.network.ending(output)
    }

    fn kernels(&self) -> &[KernelUse] {
        self.network.uses()
    }

    fn open(&self) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(TractSession { network: Arc::clone(&self.network) }))
    }
}

/// One thread's way to run the network. It holds nothing of its own, so nothing can leak.
struct TractSession {
    network: Arc<Planned>,
}

impl Session for TractSession {
    fn run(&mut self, inputs: Tensors) -> Result<Tensors, EngineError> {
        self.network.run(&inputs)
    }

    fn stacks_rows(&self) -> bool {
        self.network.signature().is_batched()
    }
}

/// Runs `work`, and turns a panic inside tract, which has many for files that it does not expect,
/// into an error. Nothing that `work` touches outlives a panic.
fn unwound<T>(work: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(refused(text_of(&*panic))))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("tract panicked: {}", text.unwrap_or("no reason given"))
}

#[cfg(test)]
pub(crate) mod tests;
