//! What a caller sends, and what is known of it before any work.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use super::{Answer, Modality, Options, base64};
use crate::{error::Error, image::Picture, tensor::Tensor};

/// One thing that a caller sends: owned, nothing decoded yet.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Image(EncodedImage),
    /// A picture that is decoded already, such as a region of another one.
    Pixels(Picture),
    Text(String),
    /// Two texts that are read together.
    Pair(String, String),
    /// Tensors under the names of the network's inputs.
    Tensors(Vec<(String, Tensor)>),
}

/// An encoded image, of a format that [`crate::image`] decodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodedImage {
    Plain(Bytes),
    /// In base64 (RFC 4648), or a `data:` URL of one (RFC 2397).
    Base64(Bytes),
}

impl EncodedImage {
    /// The image's own bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] for text that is not base64.
    pub fn decoded(self) -> Result<Bytes, Error> {
        match self {
            Self::Plain(bytes) => Ok(bytes),
            Self::Base64(text) => base64::decode(&text),
        }
    }

    /// The bytes as they came.
    pub fn bytes(&self) -> &Bytes {
        let (Self::Plain(bytes) | Self::Base64(bytes)) = self;
        bytes
    }
}

/// One item, and what the caller chose for it.
#[derive(Clone)]
pub struct Input {
    pub item: Item,
    pub options: Options,
    /// What becomes of the item's picture once the answer is known.
    pub step: Option<Arc<dyn RegionStep>>,
}

/// The step between two models of a pipeline: it runs on the worker that has both a picture and its answer, so that no
/// decoded picture leaves the worker.
pub trait RegionStep: Send + Sync {
    /// Whether the picture has to be decoded in colour, also where the first model reads grey.
    fn needs_color(&self) -> bool;

    /// Makes the items that the next models read.
    ///
    /// # Errors
    /// [`Error::Internal`] for a region beyond the picture.
    fn items(&self, picture: &Picture, answer: &Answer) -> Result<Vec<Item>, Error>;
}

impl Input {
    /// An item without options.
    pub fn new(item: Item) -> Self {
        Self { item, options: Options::default(), step: None }
    }

    /// An encoded image.
    pub fn image(bytes: impl Into<Bytes>) -> Self {
        Self::new(Item::Image(EncodedImage::Plain(bytes.into())))
    }

    /// An encoded image in base64.
    pub fn image_base64(text: impl Into<Bytes>) -> Self {
        Self::new(Item::Image(EncodedImage::Base64(text.into())))
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Item::Text(text.into()))
    }

    /// The same item with what the caller chose.
    #[must_use]
    pub fn with(self, options: &Options) -> Self {
        Self { options: options.clone(), ..self }
    }

    /// The same item with a step after its answer.
    #[must_use]
    pub fn followed_by(self, step: &Arc<dyn RegionStep>) -> Self {
        Self { step: Some(Arc::clone(step)), ..self }
    }

    /// Returns whether the picture has to be decoded in colour for the step after the answer.
    pub fn needs_color(&self) -> bool {
        self.step.as_ref().is_some_and(|step| step.needs_color())
    }

    /// What kind of item it is.
    pub fn modality(&self) -> Modality {
        match self.item {
            Item::Image(_) | Item::Pixels(_) => Modality::Image,
            Item::Text(_) => Modality::Text,
            Item::Pair(..) => Modality::Pair,
            Item::Tensors(_) => Modality::Tensors,
        }
    }

    /// The bytes that the item holds.
    pub fn n_bytes(&self) -> usize {
        match &self.item {
            Item::Image(image) => image.bytes().len(),
            Item::Pixels(picture) => picture.n_bytes(),
            Item::Text(text) => text.len(),
            Item::Pair(first, second) => first.len() + second.len(),
            Item::Tensors(tensors) => tensors.iter().map(|(_, tensor)| tensor.n_bytes()).sum(),
        }
    }

    /// The bytes of memory that the item keeps alive where it owns them: a text may have room for more than it is long.
    pub fn n_held(&self) -> usize {
        match &self.item {
            Item::Text(text) => text.capacity(),
            Item::Pair(first, second) => first.capacity() + second.capacity(),
            Item::Image(_) | Item::Pixels(_) | Item::Tensors(_) => self.n_bytes(),
        }
    }

    /// The bytes of an encoded image as they came, which may be a slice of a body.
    pub fn encoded(&self) -> Option<&Bytes> {
        match &self.item {
            Item::Image(image) => Some(image.bytes()),
            _ => None,
        }
    }

    /// What is known of it without reading it.
    pub fn size(&self) -> RequestSize {
        RequestSize { bytes: Some(self.n_bytes()), options: self.options.clone() }
    }

    /// Why a task that reads `wanted` cannot take this item.
    pub fn misplaced(&self, wanted: Modality) -> Error {
        Error::invalid(format!("this model takes {}, not {}", wanted.one(), self.modality().one()))
    }
}

impl PartialEq for Input {
    /// Steps are not compared: they have no value of their own.
    fn eq(&self, other: &Self) -> bool {
        (&self.item, &self.options) == (&other.item, &other.options)
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("item", &self.item)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What is known of an input without reading it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestSize {
    /// Bytes that it holds; `None` where nobody said.
    pub bytes: Option<usize>,
    pub options: Options,
}

impl RequestSize {
    /// An input of that many bytes, and nothing else known.
    pub fn of(bytes: usize) -> Self {
        Self { bytes: Some(bytes), options: Options::default() }
    }
}
