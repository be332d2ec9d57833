//! Folders as sentence-transformers writes them, loaded and asked.

use lepton_testkit::{
    onnx::{Axis, Element, Graph, Node, noise},
    tokenizers,
};

use super::served::loaded;
use crate::{
    engine::run_rows,
    pool::Loaded,
    tasks::{Input, Output},
};

const N_DIMS: usize = 3;

/// Each token's state is its row of a table.
fn network() -> Vec<u8> {
    let (batch, length) = (Axis::Named("batch"), Axis::Named("length"));
    Graph::default()
        .input("input_ids", Element::Long, &[batch, length])
        .floats("table", &[100, N_DIMS as i64], &table())
        .node(Node::new("Gather", &["table", "input_ids"], &["last_hidden_state"]))
        .output("last_hidden_state", Element::Float, &[batch, length, Axis::Of(N_DIMS as i64)])
        .encode()
}

fn table() -> Vec<f32> {
    noise(7, 100 * N_DIMS)
}

const MODULES: &str = r#"[
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
]"#;
const MEAN: &str =
    r#"{"word_embedding_dimension": 3, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}"#;

fn folder(modules: &str, pooling: &str, length: &str) -> Result<Loaded, String> {
    let tokenizer = tokenizers::plain();
    loaded(&[
        (
            "config.json",
            br#"{"model_type": "bert", "architectures": ["BertModel"], "max_position_embeddings": 512}"#,
        ),
        ("modules.json", modules.as_bytes()),
        ("1_Pooling/config.json", pooling.as_bytes()),
        ("sentence_bert_config.json", length.as_bytes()),
        ("tokenizer.json", tokenizer.as_bytes()),
        ("onnx/model.onnx", &network()),
    ])
}

fn vector(loaded: &Loaded, text: &str) -> Vec<f32> {
    let prepared = loaded.task.preprocess(Input::text(text)).unwrap();
    let mut session = loaded.engine.open().unwrap();
    let outputs = run_rows(session.as_mut(), &[&prepared.row]).unwrap().remove(0);
    match loaded.task.postprocess(outputs, &prepared.context).unwrap().output {
        Output::Vector(vector) => vector,
        other => panic!("{other:?}"),
    }
}

/// The mean of the tokens' rows, scaled to length 1.
fn expected(ids: &[usize]) -> Vec<f32> {
    let table = table();
    let mean = |dim: usize| ids.iter().map(|id| table[id * N_DIMS + dim]).sum::<f32>() / ids.len() as f32;
    let mean: Vec<f32> = (0..N_DIMS).map(mean).collect();
    let length = mean.iter().map(|value| value * value).sum::<f32>().sqrt();
    mean.iter().map(|value| value / length).collect()
}

#[test]
fn a_folder_of_sentence_transformers_embeds_as_it_says() {
    let loaded = folder(MODULES, MEAN, r#"{"max_seq_length": 4, "do_lower_case": false}"#).unwrap();
    assert_eq!(loaded.task.descriptor().name, "text-embedding");
    for (text, ids) in
        [("very good film", &[5, 2, 4][..]), ("good", &[2]), ("good good good good good", &[2, 2, 2, 2])]
    {
        for (got, expected) in vector(&loaded, text).iter().zip(expected(ids)) {
            assert!((got - expected).abs() < 1e-6, "{text}: {got} for {expected}");
        }
    }
}

#[test]
fn modules_that_are_not_served_are_named() {
    let refused = |modules: &str, pooling: &str, length: &str| {
        folder(modules, pooling, length).map(|_| ()).unwrap_err()
    };
    let dense = MODULES.replace("models.Normalize", "models.Dense");
    assert!(
        refused(&dense, MEAN, "{}")
            .contains("there is \"sentence_transformers.models.Dense\" where Normalize")
    );
    let clip = MODULES.replace("models.Transformer", "models.CLIPModel");
    assert!(refused(&clip, MEAN, "{}").contains("a Transformer in the folder itself is expected"));
    let both = MEAN.replace("\"pooling_mode_cls_token\": false", "\"pooling_mode_cls_token\": true");
    assert!(refused(MODULES, &both, "{}").contains("the pooling mode cls and mean is not served"));
    let weighted = r#"{"pooling_mode": "weightedmean"}"#;
    assert!(
        refused(MODULES, weighted, "{}").contains("1_Pooling/config.json: the pooling mode weightedmean")
    );
    assert!(refused(MODULES, MEAN, r#"{"do_lower_case": true}"#).contains("do_lower_case is true"));
}
