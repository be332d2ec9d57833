//! The cases of the suite as networks that this engine takes.
//!
//! A case has tensors of any shape, and the engine's networks have rows. So each case is put into a
//! network of one row: its inputs lose a leading axis of 1 and its outputs get one. Cases are also
//! tried with all inputs but the first as constants, since kernels pack weights; and convolutions of
//! pictures with as many outputs as the kernel asks for.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use half::f16;
use prost::Message;
use tract_onnx::pb::{
    AttributeProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

use super::super::super::network::dtype;
use crate::tensor::{DType, Tensor};

const SUITE: &str = "../../../shared/models/onnx-backend-test-1.16.2.tar.xz";

/// The whole networks of the suite that load and run within seconds.
const LARGE: [&str; 5] = ["densenet121", "inception_v1", "resnet50", "shufflenet", "squeezenet"];

/// Output channels that a widened convolution has at least.
const WIDE: i64 = 16;

/// A network with what goes in and what has to come out.
pub(super) struct Case {
    pub(super) name: String,
    /// An ONNX file.
    pub(super) network: Vec<u8>,
    pub(super) inputs: Vec<Tensor>,
    pub(super) outputs: Vec<Tensor>,
}

/// Every case of the suite with tensors of types that are served, in each of its guises; nothing where
/// the suite cannot be read.
pub(super) fn cases() -> Option<Vec<Case>> {
    let folder = unpacked()?;
    let mut cases = Vec::new();
    for group in ["node", "simple", "pytorch-converted", "pytorch-operator"] {
        for entry in sorted(&folder.path().join("onnx-backend-test-1.16.2").join(group)) {
            if let Some(recorded) = Recorded::read(&entry) {
                cases.extend(recorded.cases());
            }
        }
    }
    for name in LARGE {
        let file = folder.path().join(format!("onnx-backend-test-1.16.2/light/light_{name}.onnx"));
        cases.extend(Recorded::read_light(&file).unwrap().cases());
    }
    Some(cases)
}

fn unpacked() -> Option<tempfile::TempDir> {
    let archive = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(SUITE);
    let folder = tempfile::tempdir().unwrap();
    let tar = Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(folder.path()).output();
    let why = match tar {
        Ok(output) if output.status.success() => return Some(folder),
        Ok(output) => String::from_utf8_lossy(&output.stderr).replace('\n', " "),
        Err(error) => format!("tar does not start: {error}"),
    };
    // Past the test runner's capture: what was not tested has to be seen.
    let _told = writeln!(io::stderr(), "skipped: {SUITE} cannot be unpacked: {why}");
    None
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// A case as the suite has it.
#[derive(Clone)]
struct Recorded {
    name: String,
    model: ModelProto,
    /// The inputs in the order of the graph, and the answers.
    inputs: Vec<TensorProto>,
    outputs: Vec<TensorProto>,
}

impl Recorded {
    /// Reads a folder with a network and its data; nothing where it is not all tensors.
    fn read(folder: &Path) -> Option<Self> {
        let name = folder.file_name()?.to_str()?.to_owned();
        let model = ModelProto::decode(&*fs::read(folder.join("model.onnx")).ok()?).ok()?;
        let graph = model.graph.as_ref()?;
        let tensors = |what: &str, values: &[ValueInfoProto]| -> Option<Vec<TensorProto>> {
            let read = |(position, value): (usize, &ValueInfoProto)| {
                is_tensor(value).then_some(())?;
                let file = folder.join(format!("test_data_set_0/{what}_{position}.pb"));
                TensorProto::decode(&*fs::read(file).ok()?).ok()
            };
            values.iter().enumerate().map(read).collect()
        };
        let given: Vec<ValueInfoProto> = given(&model).cloned().collect();
        let (inputs, outputs) = (tensors("input", &given)?, tensors("output", &graph.output)?);
        Some(Self { name, inputs, outputs, model })
    }

    /// Reads a large network whose weights are fills. The suite runs it on a ramp from 0 to 1.
    fn read_light(file: &Path) -> Option<Self> {
        let name = file.file_stem()?.to_str()?;
        let model = ModelProto::decode(&*fs::read(file).ok()?).ok()?;
        let answer = file.with_file_name(format!("{name}_output_0.pb"));
        let outputs = vec![TensorProto::decode(&*fs::read(answer).ok()?).ok()?];
        let first = given(&model).next()?;
        let Some(type_proto::Value::TensorType(tensor)) = first.r#type.as_ref()?.value.as_ref() else {
            return None;
        };
        let size = |dim: &Dimension| match dim.value {
            Some(dimension::Value::DimValue(n)) => Some(n),
            _ => None,
        };
        let dims: Vec<i64> = tensor.shape.as_ref()?.dim.iter().map(size).collect::<Option<_>>()?;
        let n: i64 = dims.iter().product();
        let ramp = (0..n).map(|i| i as f32 / n as f32).collect();
        let inputs = vec![TensorProto {
            dims,
            data_type: DataType::Float as i32,
            float_data: ramp,
            ..TensorProto::default()
        }];
        Some(Self { name: name.to_owned(), model, inputs, outputs })
    }

    fn cases(self) -> Vec<Case> {
        let constant = (self.inputs.len() > 1).then(|| self.with_constants());
        let wide = constant.as_ref().unwrap_or(&self).widened();
        let guises = [Some(self), constant, wide].into_iter().flatten();
        guises.filter_map(|recorded| recorded.case()).collect()
    }

    /// The case with all inputs but the first as constants.
    fn with_constants(&self) -> Self {
        let mut case = self.clone();
        case.name += ", its weights constant";
        let names: Vec<String> = given(&case.model).map(|value| value.name.clone()).collect();
        let graph = case.model.graph.as_mut().unwrap();
        for (name, tensor) in names.iter().zip(case.inputs.drain(..)).skip(1) {
            graph.initializer.push(TensorProto { name: name.clone(), ..tensor });
        }
        case.inputs = self.inputs[..1].to_vec();
        case
    }

    /// A convolution of pictures whose answers are repeated, so that they are as many as the kernel asks
    /// for, and then left as they are by another convolution; nothing where the case is another.
    fn widened(&self) -> Option<Self> {
        let mut case = self.clone();
        case.name += ", wide";
        let graph = case.model.graph.as_mut()?;
        let [conv] = graph.node.as_mut_slice() else { return None };
        let in_groups = conv.attribute.iter().any(|attribute| attribute.name == "group" && attribute.i != 1);
        if conv.op_type != "Conv" || in_groups || self.inputs.len() != 1 {
            return None;
        }
        let answer = std::mem::replace(&mut conv.output[0], "wide".to_owned());
        let mut n_outputs = 0;
        for name in &conv.input[1..] {
            let tensor = graph.initializer.iter_mut().find(|tensor| tensor.name == *name)?;
            if tensor.dims.len() != 4 && tensor.dims.len() != 1 {
                return None;
            }
            n_outputs = tensor.dims[0];
            let n_times = WIDE / n_outputs + 1;
            tensor.raw_data = tensor.raw_data.repeat(n_times as usize);
            tensor.float_data = tensor.float_data.repeat(n_times as usize);
            tensor.dims[0] *= n_times;
        }
        let n_wide = (WIDE / n_outputs + 1) * n_outputs;
        let same: Vec<f32> =
            (0..n_wide * n_wide).map(|i| f32::from(u8::from(i % (n_wide + 1) == 0))).collect();
        graph.initializer.push(TensorProto {
            name: "same".to_owned(),
            dims: vec![n_wide, n_wide, 1, 1],
            data_type: DataType::Float as i32,
            float_data: same,
            ..TensorProto::default()
        });
        graph.initializer.push(longs("first", (0..n_outputs).collect()));
        graph.node.push(node("Conv", &["wide", "same"], "wide_too"));
        let axis = AttributeProto {
            name: "axis".to_owned(),
            i: 1,
            r#type: AttributeType::Int as i32,
            ..AttributeProto::default()
        };
        graph
            .node
            .push(NodeProto { attribute: vec![axis], ..node("Gather", &["wide_too", "first"], &answer) });
        Some(case)
    }

    /// The case as a network of one row; nothing where a type is not served.
    fn case(mut self) -> Option<Case> {
        let version = self.model.opset_import.iter().find(|opset| opset.domain.is_empty())?.version;
        let inputs: Vec<Tensor> = self.inputs.iter().map(row).collect::<Option<_>>()?;
        let outputs: Vec<Tensor> = self.outputs.iter().map(row).collect::<Option<_>>()?;
        let names: Vec<String> = given(&self.model).map(|value| value.name.clone()).collect();
        let graph = self.model.graph.as_mut()?;
        graph.initializer.push(longs("lepton_leading", vec![0]));
        let mut declared = Vec::new();
        let mut nodes = Vec::new();
        for (name, tensor) in names.iter().zip(&self.inputs) {
            let outer = format!("lepton_{name}");
            nodes.push(leading_axis("Squeeze", version, &outer, name));
            declared.push(one_row(outer, tensor));
        }
        nodes.append(&mut graph.node);
        graph.input = declared;
        for (value, tensor) in graph.output.iter_mut().zip(&self.outputs) {
            let outer = format!("lepton_{}", value.name);
            nodes.push(leading_axis("Unsqueeze", version, &value.name, &outer));
            *value = one_row(outer, tensor);
        }
        graph.node = nodes;
        Some(Case { name: self.name, network: self.model.encode_to_vec(), inputs, outputs })
    }
}

fn is_tensor(value: &ValueInfoProto) -> bool {
    let declared = value.r#type.as_ref().and_then(|declared| declared.value.as_ref());
    matches!(declared, Some(type_proto::Value::TensorType(_)))
}

/// The inputs that no constant fills.
fn given(model: &ModelProto) -> impl Iterator<Item = &ValueInfoProto> {
    model.graph.iter().flat_map(|graph| {
        let is_constant =
            |value: &&ValueInfoProto| graph.initializer.iter().any(|tensor| tensor.name == value.name);
        graph.input.iter().filter(move |value| !is_constant(value))
    })
}

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.to_owned(),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// `Squeeze` or `Unsqueeze` of axis 0; before version 13, axes were attributes.
fn leading_axis(operator: &str, version: i64, input: &str, output: &str) -> NodeProto {
    if version >= 13 {
        return node(operator, &[input, "lepton_leading"], output);
    }
    let axes = AttributeProto {
        name: "axes".to_owned(),
        ints: vec![0],
        r#type: AttributeType::Ints as i32,
        ..AttributeProto::default()
    };
    NodeProto { attribute: vec![axes], ..node(operator, &[input], output) }
}

fn longs(name: &str, values: Vec<i64>) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: vec![values.len() as i64],
        data_type: DataType::Int64 as i32,
        int64_data: values,
        ..TensorProto::default()
    }
}

/// Declares a tensor behind a leading axis of 1.
fn one_row(name: String, tensor: &TensorProto) -> ValueInfoProto {
    let dim = |n: i64| Dimension { value: Some(dimension::Value::DimValue(n)), ..Dimension::default() };
    let dim = [1].into_iter().chain(tensor.dims.iter().copied()).map(dim).collect();
    let shape = Some(TensorShapeProto { dim });
    let tensor = type_proto::Tensor { elem_type: tensor.data_type, shape };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto {
        name,
        r#type: Some(TypeProto { value, ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

/// A tensor as one row; nothing where its numbers are of a type that is not served.
fn row(tensor: &TensorProto) -> Option<Tensor> {
    let shape: Vec<usize> = [1].into_iter().chain(tensor.dims.iter().map(|n| *n as usize)).collect();
    let dtype = dtype(tensor.data_type)?;
    if !tensor.raw_data.is_empty() {
        return Tensor::from_bytes(dtype, shape, tensor.raw_data.clone().into()).ok();
    }
    // Types that are narrower than the field that they are written in.
    let ints = || tensor.int32_data.iter();
    match dtype {
        DType::F32 => Tensor::new(shape, tensor.float_data.clone()),
        DType::F64 => Tensor::new(shape, tensor.double_data.clone()),
        DType::I64 => Tensor::new(shape, tensor.int64_data.clone()),
        DType::I32 => Tensor::new(shape, tensor.int32_data.clone()),
        DType::U8 => Tensor::new(shape, ints().map(|x| *x as u8).collect()),
        DType::Bool => Tensor::new(shape, ints().map(|x| *x != 0).collect()),
        DType::F16 => Tensor::new(shape, ints().map(|x| f16::from_bits(*x as u16)).collect()),
        DType::Bytes => Tensor::of_strings(shape, &tensor.string_data),
        _ => return None,
    }
    .ok()
}
