//! An ONNX file into a checked network: what it takes, what it gives, how its rows may run.
//!
//! Invariant: nothing in the file is trusted. `census` checks counts and sizes before anything is built
//! from them, files beside it are read only below its own folder, and a network that this engine
//! cannot serve is refused here, by name, and not at the first request.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tract_onnx::{
    data_resolver::ModelDataResolver,
    model::ParseResult,
    pb::{self, tensor_proto::DataType, tensor_shape_proto::dimension, type_proto},
    prelude::{Framework, InferenceModel, TractError, TractResult},
};

use super::{
    Origin,
    census::{self, Counted, Limits},
    ending,
    footprint::Footprint,
    recurrent,
};
use crate::{
    Batching, Dim, Ending, EngineError, Port, Signature,
    tensor::{DType, MAX_RANK},
};

/// How many rows one run takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// There are none: tensors are run as they are.
    None,
    /// One: its leading axis is fixed, or its rows are pictures, which run slower in a batch.
    One,
    Any,
}

/// A network that was read and checked, ready to be made into plans.
pub(super) struct Network {
    pub(super) model: InferenceModel,
    pub(super) signature: Signature,
    pub(super) rows: Rows,
    /// Bytes of weights that each plan copies into the layout of its own kernels.
    pub(super) packed_bytes: usize,
    /// What the values of a plan may take.
    pub(super) footprint: Footprint,
    /// What the numbers of each output are.
    pub(super) endings: Vec<Ending>,
}

impl Network {
    /// Reads an ONNX file.
    pub(super) fn read(origin: Origin<'_>, limits: Limits) -> Result<Self, EngineError> {
        let Origin { bytes, folder, batching } = origin;
        census::count(bytes, limits)?;
        let onnx = tract_onnx::onnx();
        let file = onnx.proto_model_for_read(&mut &*bytes).map_err(|error| load_error(&error))?;
        let graph = file.graph.as_ref().ok_or_else(|| refused("the file holds no graph".to_owned()))?;
        let Counted { weight_bytes, largest } = census::take(graph, limits)?;
        let footprint = Footprint::new(limits.elements, largest);
        let signature = signature_of(graph, batching, limits)?;
        check_names(graph)?;
        let mut onnx = tract_onnx::Onnx {
            // Exporters write sizes there that contradict a concrete batch; analysis finds its own.
            ignore_value_info: true,
            provider: Arc::new(FilesBeside { budget: AtomicUsize::new(limits.weight_bytes - weight_bytes) }),
            ..onnx
        };
        recurrent::register(&mut onnx);
        let unknown = graph.node.iter().find(|node| !onnx.op_register.0.contains_key(&node.op_type));
        if let Some(node) = unknown {
            return Err(EngineError::Unsupported { what: "operator", found: node.op_type.clone() });
        }
        let folder = folder
            .map(|path| path.to_str().ok_or_else(|| refused("its folder's name is not UTF-8".to_owned())));
        let parsed = onnx.parse(&file, folder.transpose()?).map_err(|error| load_error(&error))?;
        let ParseResult { model, unresolved_inputs, .. } = parsed;
        if let Some(name) = unresolved_inputs.first() {
            return Err(refused(format!("`{name}` is read but nothing makes it")));
        }
        let endings = signature.outputs.iter().map(|port| ending::of(graph, &port.name)).collect();
        Ok(Self {
            model,
            rows: rows_of(&signature),
            signature,
            packed_bytes: packed_bytes(graph),
            footprint,
            endings,
        })
    }

    /// The shape of each input, without the axis of rows where there is one; `None` where the network leaves a choice.
    pub(super) fn only_shapes(&self) -> Option<Vec<Vec<usize>>> {
        let fixed = |dim: &Dim| match dim {
            Dim::Fixed(n) => Some(*n),
            Dim::Free(_) => None,
        };
        let inputs = self.signature.inputs.iter();
        inputs
            .map(|port| port.shape.iter().skip(usize::from(port.batch_axis.is_some())).map(fixed).collect())
            .collect()
    }
}

pub(super) fn refused(text: String) -> EngineError {
    EngineError::Load(text)
}

/// The error and its causes on one line: a log line is one line.
pub(super) fn load_error(error: &TractError) -> EngineError {
    EngineError::Load(one_line(error))
}

pub(super) fn one_line(error: &TractError) -> String {
    const LONGEST: usize = 600;
    let text = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

/// Pictures run row by row: a batch costs up to three times more for each than one alone.
fn rows_of(signature: &Signature) -> Rows {
    if !signature.is_batched() {
        return Rows::None;
    }
    let alone = |port: &Port| port.shape[0] == Dim::Fixed(1) || port.shape.len() >= 4;
    if signature.inputs.iter().any(alone) { Rows::One } else { Rows::Any }
}

/// Sums the matrices; tables whose rows are looked up are shared as they are.
fn packed_bytes(graph: &pb::GraphProto) -> usize {
    let lookups = graph.node.iter().filter(|node| node.op_type == "Gather");
    let tables: HashSet<&str> = lookups.filter_map(|node| node.input.first()).map(String::as_str).collect();
    let matrices = graph.initializer.iter().filter(|tensor| tensor.dims.len() >= 2);
    let matrices = matrices.filter(|tensor| !tables.contains(tensor.name.as_str()));
    matrices.map(|tensor| tensor.raw_data.len().max(4 * tensor.float_data.len())).sum()
}

/// Says which output nothing makes: the parser takes its presence for granted.
fn check_names(graph: &pb::GraphProto) -> Result<(), EngineError> {
    let made = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
    let weights = graph.initializer.iter().map(|tensor| tensor.name.as_str());
    let inputs = graph.input.iter().map(|input| input.name.as_str());
    let known: HashSet<&str> = made.chain(weights).chain(inputs).collect();
    match graph.output.iter().find(|output| !known.contains(output.name.as_str())) {
        Some(output) => Err(refused(format!("nothing makes its output `{}`", output.name))),
        None => Ok(()),
    }
}

fn signature_of(
    graph: &pb::GraphProto,
    batching: Batching,
    limits: Limits,
) -> Result<Signature, EngineError> {
    let weights: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let inputs = graph.input.iter().filter(|input| !weights.contains(input.name.as_str()));
    let mut inputs: Vec<Port> = inputs.map(|input| port(input, "input")).collect::<Result<_, _>>()?;
    let mut outputs: Vec<Port> =
        graph.output.iter().map(|output| port(output, "output")).collect::<Result<_, _>>()?;
    if inputs.is_empty() || outputs.is_empty() {
        let text = format!(
            "it has {} inputs and {} outputs, at least one of each is needed",
            inputs.len(),
            outputs.len()
        );
        return Err(refused(text));
    }
    for input in &inputs {
        check_size(input, limits)?;
    }
    let has_rows = match batching {
        Batching::Required => check_rows(&inputs).map(|()| true)?,
        Batching::Declared => declares_rows(graph, &weights),
    };
    if has_rows {
        inputs.iter_mut().chain(&mut outputs).for_each(|port| port.batch_axis = Some(0));
    }
    Ok(Signature { inputs, outputs })
}

/// Refuses inputs whose leading axis cannot be that of the rows of a batch.
fn check_rows(inputs: &[Port]) -> Result<(), EngineError> {
    for input in inputs {
        let Some(leading) = input.shape.first() else {
            let found = format!("`{}` is a single number; it needs the rows as leading axis", input.name);
            return Err(EngineError::Unsupported { what: "input", found });
        };
        if matches!(leading, Dim::Fixed(n) if *n != 1) {
            let found = format!("{leading} in `{}` {}; it must be 1 or free", input.name, input.describe());
            return Err(EngineError::Unsupported { what: "leading axis", found });
        }
    }
    if inputs.iter().any(|input| (input.shape[0] == Dim::Fixed(1)) != (inputs[0].shape[0] == Dim::Fixed(1))) {
        let found = inputs.iter().map(|input| format!("`{}` {}", input.name, input.describe()));
        let found = format!("{}; it must be 1 for all or free for all", found.collect::<Vec<_>>().join(", "));
        return Err(EngineError::Unsupported { what: "inputs' leading axis", found });
    }
    Ok(())
}

/// Returns whether the file itself says that the leading axis is that of rows: it is 1 for all inputs and outputs, or
/// all of them call it a batch, by one name.
fn declares_rows(graph: &pb::GraphProto, weights: &HashSet<&str>) -> bool {
    let inputs = graph.input.iter().filter(|input| !weights.contains(input.name.as_str()));
    let leading: Option<Vec<&dimension::Value>> = inputs.chain(&graph.output).map(leading_axis).collect();
    let leading = leading.unwrap_or_default();
    match leading.first() {
        Some(dimension::Value::DimValue(1)) => leading.iter().all(|axis| *axis == leading[0]),
        Some(dimension::Value::DimParam(name)) => {
            let name = name.to_ascii_lowercase();
            (name.contains("batch") || name == "n") && leading.iter().all(|axis| *axis == leading[0])
        }
        _ => false,
    }
}

fn leading_axis(value: &pb::ValueInfoProto) -> Option<&dimension::Value> {
    match value.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => tensor.shape.as_ref()?.dim.first()?.value.as_ref(),
    }
}

fn check_size(input: &Port, limits: Limits) -> Result<(), EngineError> {
    let fixed = input.shape.iter().filter_map(|dim| match dim {
        Dim::Fixed(n) => Some(*n),
        Dim::Free(_) => None,
    });
    match fixed.clone().try_fold(1usize, usize::checked_mul) {
        Some(n) if n > 0 && n <= limits.elements => Ok(()),
        _ => Err(refused(format!(
            "its input `{}` {} is empty or has more than the {} elements allowed",
            input.name,
            input.describe(),
            limits.elements
        ))),
    }
}

/// What the file declares about one input or output. An axis without a size or a name of its own is
/// called `batch` where it leads, and otherwise by its position.
fn port(value: &pb::ValueInfoProto, what: &'static str) -> Result<Port, EngineError> {
    let name = value.name.clone();
    let declared = value.r#type.as_ref().and_then(|declared| declared.value.as_ref());
    let Some(type_proto::Value::TensorType(tensor)) = declared else {
        return Err(refused(format!("its {what} `{name}` declares no tensor type")));
    };
    let dtype = dtype(tensor.elem_type).ok_or_else(|| {
        let found = DataType::try_from(tensor.elem_type).map_or("unknown", |found| found.as_str_name());
        let found = format!(
            "{} of `{name}`; it must be bool, u8 to u64, i8 to i64, f16, f32, f64 or string",
            found.to_lowercase()
        );
        EngineError::Unsupported { what: "element type", found }
    })?;
    let Some(shape) = &tensor.shape else {
        return Err(refused(format!("its {what} `{name}` declares no shape")));
    };
    if shape.dim.len() > MAX_RANK {
        let found = format!("of `{name}` has {} axes; at most {MAX_RANK} are allowed", shape.dim.len());
        return Err(EngineError::Unsupported { what: "shape", found });
    }
    let axis = |(position, dim): (usize, &pb::tensor_shape_proto::Dimension)| match &dim.value {
        Some(dimension::Value::DimValue(n)) if *n >= 0 => {
            Dim::Fixed(usize::try_from(*n).unwrap_or(usize::MAX))
        }
        Some(dimension::Value::DimParam(name)) if !name.is_empty() => Dim::Free(name.clone()),
        _ if position == 0 => Dim::Free("batch".to_owned()),
        _ => Dim::Free(format!("axis_{position}")),
    };
    Ok(Port { name, dtype, shape: shape.dim.iter().enumerate().map(axis).collect(), batch_axis: None })
}

/// Returns the type of elements that ONNX numbers so; `None` where tract has none for it.
pub(super) fn dtype(elem_type: i32) -> Option<DType> {
    match DataType::try_from(elem_type).ok()? {
        DataType::Bool => Some(DType::Bool),
        DataType::Uint8 => Some(DType::U8),
        DataType::Uint16 => Some(DType::U16),
        DataType::Uint32 => Some(DType::U32),
        DataType::Uint64 => Some(DType::U64),
        DataType::Int8 => Some(DType::I8),
        DataType::Int16 => Some(DType::I16),
        DataType::Int32 => Some(DType::I32),
        DataType::Int64 => Some(DType::I64),
        DataType::Float16 => Some(DType::F16),
        DataType::Float => Some(DType::F32),
        DataType::Double => Some(DType::F64),
        DataType::String => Some(DType::Bytes),
        _ => None,
    }
}

/// Reads weights from files beside the network. The parser has already refused a location that
/// leads out of the folder, by its name or by a link.
struct FilesBeside {
    /// Bytes that may still be read.
    budget: AtomicUsize,
}

impl ModelDataResolver for FilesBeside {
    fn read_bytes_from_path(
        &self,
        buffer: &mut Vec<u8>,
        path: &Path,
        offset: usize,
        length: Option<usize>,
    ) -> TractResult<()> {
        let metadata = fs::metadata(path)?;
        // Opening a pipe or a device could wait for ever.
        if !metadata.is_file() {
            return Err(TractError::msg("external data must be a regular file"));
        }
        let available = usize::try_from(metadata.len())?.saturating_sub(offset);
        let length = length.unwrap_or(available);
        if length > available {
            let text = format!("external data of {length} bytes at {offset} is past the end of its file");
            return Err(TractError::msg(text));
        }
        let spend = |budget: usize| budget.checked_sub(length);
        if self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_err() {
            return Err(TractError::msg("its weights take more bytes than allowed"));
        }
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset as u64))?;
        let before = buffer.len();
        file.take(length as u64).read_to_end(buffer)?;
        if buffer.len() - before == length {
            Ok(())
        } else {
            Err(TractError::msg("external data ended while it was read"))
        }
    }
}
