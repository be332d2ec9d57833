//! States made by hand, and what becomes of them.

use lepton_testkit::tokenizers;

use super::*;
use crate::{
    image::ImageLimits,
    tasks::{OptionValue, Options, TaskOptions},
    tensor::Tensor,
};

fn port(name: &str, dtype: DType, shape: &[Dim]) -> Port {
    Port { name: name.to_owned(), dtype, shape: shape.to_vec(), batch_axis: Some(0) }
}

fn free(name: &str) -> Dim {
    Dim::Free(name.to_owned())
}

fn signature(output: &[Dim]) -> Signature {
    let shape = [free("batch"), free("length")];
    Signature {
        inputs: vec![port("ids", DType::I64, &shape)],
        outputs: vec![port("ids_again", DType::I64, &shape), port("states", DType::F32, output)],
    }
}

const MANIFEST: &str = "[task.text-embedding]\npooling = 'mean'\nnormalize = true\n\
                        [task.text-embedding.input]\nmax_tokens = 7\nids = 'ids'\n";

fn built(manifest: &str, signature: &Signature) -> Result<TextEmbedding, SpecError> {
    let spec: TextEmbeddingSpec = section(manifest, DESCRIPTOR.name).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), tokenizers::plain()).unwrap();
    let options = TaskOptions { image: ImageLimits { pixels: 1, side: 1, memory: 1 } };
    TextEmbedding::build(&spec, &BuildContext { dir: dir.path(), signature, endings: &[], options })
}

fn task(pooling: &str) -> TextEmbedding {
    let shape = [free("batch"), free("length"), Dim::Fixed(2)];
    built(&MANIFEST.replace("'mean'", pooling), &signature(&shape)).unwrap()
}

/// The vector of a text whose tokens have these states, in a row that is padded with others.
fn vector(task: &TextEmbedding, input: Input, states: &[[f32; 2]]) -> Result<Vec<f32>, Error> {
    let prepared = task.preprocess(input)?;
    let mut values: Vec<f32> = states.iter().flatten().copied().collect();
    values.resize(2 * prepared.shape, 99.0);
    let shape = vec![prepared.shape, 2];
    let ids = Tensor::new(vec![prepared.shape], vec![0i64; prepared.shape]).unwrap();
    let states = Tensor::new(shape, values).unwrap();
    match task.postprocess(vec![ids, states], &prepared.context)?.output {
        Output::Vector(vector) => Ok(vector),
        other => panic!("{other:?}"),
    }
}

fn raw(text: &str) -> Input {
    let mut options = Options::default();
    options.insert("normalize", OptionValue::Flag(false));
    Input::text(text).with(&options)
}

#[test]
fn states_of_tokens_are_pooled_and_those_of_padding_are_not() {
    let states = [[1.0, -4.0], [3.0, 0.0], [2.0, 1.0]];
    for (pooling, expected) in
        [("'mean'", [2.0, -1.0]), ("'first'", [1.0, -4.0]), ("'max'", [3.0, 1.0]), ("'last'", [2.0, 1.0])]
    {
        let task = task(pooling);
        assert_eq!(vector(&task, raw("very good film"), &states).unwrap(), expected, "{pooling}");
        let one = vector(&task, raw("good"), &states[..1]).unwrap();
        assert_eq!(one, [1.0, -4.0], "{pooling} of one token");
    }
}

#[test]
fn vectors_have_length_one_unless_the_caller_wants_them_as_they_are() {
    let task = task("'mean'");
    assert_eq!(vector(&task, Input::text("good"), &[[3.0, -4.0]]).unwrap(), [0.6, -0.8]);
    assert_eq!(vector(&task, raw("good"), &[[3.0, -4.0]]).unwrap(), [3.0, -4.0]);
    assert_eq!(vector(&task, Input::text("good"), &[[0.0, 0.0]]).unwrap(), [0.0, 0.0]);
    let large = vector(&task, Input::text("good"), &[[3e38, -4e37]]).unwrap();
    assert!((large.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-6, "{large:?}");
}

#[test]
fn what_is_no_vector_is_a_fault() {
    let task = task("'mean'");
    assert!(matches!(vector(&task, raw("good"), &[[f32::NAN, 0.0]]), Err(Error::Internal(_))));
    let prepared = task.preprocess(raw("very good film")).unwrap();
    let short = Tensor::new(vec![2, 2], vec![0.0_f32; 4]).unwrap();
    let outputs = vec![short.clone(), short];
    assert!(matches!(task.postprocess(outputs, &prepared.context), Err(Error::Internal(_))));
}

#[test]
fn a_network_may_pool_itself() {
    let task = built(MANIFEST, &signature(&[free("batch"), Dim::Fixed(2)])).unwrap();
    let prepared = task.preprocess(Input::text("very good film")).unwrap();
    let vector = Tensor::new(vec![2], vec![3.0_f32, -4.0]).unwrap();
    let answer = task.postprocess(vec![vector.clone(), vector], &prepared.context).unwrap();
    assert_eq!(answer.output, Output::Vector(vec![0.6, -0.8]));
    assert!(matches!(answer.about, About::Text { tokens: 3, .. }));
}

#[test]
fn a_section_that_does_not_fit_is_refused_with_what_would() {
    let shape = [free("batch"), free("length"), Dim::Fixed(2)];
    let refused = |manifest: &str, signature: &Signature| {
        built(manifest, signature).map(|_| ()).unwrap_err().to_string()
    };
    let named = MANIFEST.replace("pooling", "output = 'x'\npooling");
    assert_eq!(
        refused(&named, &signature(&shape)),
        "output names \"x\", but the network's outputs are ids_again, states"
    );
    let wrong = MANIFEST.replace("pooling", "output = 'ids_again'\npooling");
    assert!(refused(&wrong, &signature(&shape)).contains("but states are f32 [batch, length, dimensions]"));
    let mut none = signature(&shape);
    none.outputs.pop();
    assert!(refused(MANIFEST, &none).contains("no output of the network holds states or vectors"));
    let error = section::<TextEmbeddingSpec>(&MANIFEST.replace("'mean'", "'median'"), DESCRIPTOR.name);
    assert!(error.unwrap_err().to_string().contains("expected one of `mean`, `first`, `max`, `last`"));
}
