//! What a `pipeline.toml` may say, and which models can do their part.

use super::*;
use crate::tasks::descriptor_of;

const FACES: &str = r#"
    detector = "face-detector"
    regions = "faces"
    [[readers]]
    model = "face"
    margin = 0.25
"#;

fn model(name: &ModelName) -> Option<Option<&'static Descriptor>> {
    match name.as_str() {
        "face-detector" => Some(descriptor_of("face-detection")),
        "face" | "age" => Some(descriptor_of("image-classification")),
        "sentiment" => Some(descriptor_of("text-classification")),
        "broken" => Some(None),
        _ => None,
    }
}

#[test]
fn a_pipeline_is_read_and_what_is_left_out_has_its_default() {
    let spec = PipelineSpec::parse(FACES).unwrap();
    assert_eq!((spec.detector.as_str(), spec.regions.as_str()), ("face-detector", "faces"));
    let reader = ReaderSpec { model: "face".parse().unwrap(), margin: 0.25, key: None };
    assert_eq!(spec.readers, [reader]);
    let spec = PipelineSpec::parse("detector = 'd'\n[[readers]]\nmodel = 'r'\n").unwrap();
    assert_eq!((spec.regions.as_str(), spec.readers[0].margin), ("regions", 0.0));
}

#[test]
fn what_a_pipeline_cannot_say_is_refused_with_what_it_can() {
    let refused = |from: &str, to: &str| PipelineSpec::parse(&FACES.replace(from, to)).unwrap_err();
    for (from, to, expected) in [
        ("regions =", "region =", "unknown field `region`, expected one of"),
        ("\"face-detector\"", "\"Face\"", "cannot be a model's name"),
        ("0.25", "2.5", "margin of `face` is 2.5; -0.4 to 2 are allowed"),
        ("0.25", "-0.5", "margin of `face` is -0.5; -0.4 to 2 are allowed"),
        ("\"faces\"", "\"width\"", "expected a name of its own"),
        ("margin = 0.25", "as = 'score'", "expected a name other than box"),
        ("[[readers]]\n    model = \"face\"\n    margin = 0.25", "readers = []", "expected at least one"),
    ] {
        let error = refused(from, to);
        assert!(error.starts_with("pipeline.toml: ") && error.contains(expected), "{error}");
    }
    let twice = format!("{FACES}\n    [[readers]]\n    model = \"age\"\n");
    assert!(PipelineSpec::parse(&twice).unwrap_err().contains("a name for each but one"));
    let named = format!("{twice}    as = \"age\"\n");
    assert_eq!(PipelineSpec::parse(&named).unwrap().readers[1].key.as_deref(), Some("age"));
}

#[test]
fn models_that_are_missing_or_cannot_do_their_part_are_named() {
    let check = |from: &str, to: &str| {
        let spec = PipelineSpec::parse(&FACES.replace(from, to)).unwrap();
        let found = vec![Pipeline { name: "faces".parse().unwrap(), spec }];
        Pipelines::new(found, model)
            .map(|pipelines| pipelines.iter().count())
            .map_err(|error| error.to_string())
    };
    assert_eq!(check("", ""), Ok(1));
    let error = |from, to| check(from, to).unwrap_err();
    assert_eq!(check("\"face\"", "\"broken\""), Ok(1));
    assert_eq!(error("\"face\"", "\"gone\""), "the pipeline `faces`: there is no model `gone`");
    assert_eq!(
        error("\"face-detector\"", "\"age\""),
        "the pipeline `faces`: its detector `age` is for image-classification, which finds no regions"
    );
    assert_eq!(
        error("\"face\"", "\"sentiment\""),
        "the pipeline `faces`: its reader `sentiment` is for text-classification, which reads no regions of pictures"
    );
}

#[test]
fn folders_with_a_pipeline_are_found_by_their_names() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b", "a", "model", ".hidden"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    for name in ["b", "a", ".hidden"] {
        std::fs::write(dir.path().join(name).join(FILE), FACES).unwrap();
    }
    let found = scan(dir.path()).unwrap();
    assert_eq!(found.iter().map(|pipeline| pipeline.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    std::fs::write(dir.path().join("b").join(FILE), "x").unwrap();
    assert!(scan(dir.path()).unwrap_err().to_string().starts_with("the pipeline `b`: pipeline.toml: "));
    assert_eq!(scan(&dir.path().join("none")).unwrap(), []);
}
