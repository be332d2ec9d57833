//! Sound requests in every form that the contract has, as a caller sees them.

use base64::{Engine, prelude::BASE64_STANDARD};
use lepton_testkit::pictures;
use serde_json::{Value, json};

use crate::support::{
    client::{Response, exchange, get, multipart, post, post_with},
    process::Lepton,
};

/// The classifier alone: faces are found in `faces.rs`.
const VISION: &str = "/v1/vision/classify?model=face";
const TEXT: &str = "/v1/text/sentiment";

fn ok(response: Response) -> Value {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// Keeps the form of an answer and drops its figures: what is stable enough to read in a test.
fn form(answer: &Value) -> String {
    match answer {
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(items) => format!("[{}; {}]", items.first().map(form).unwrap_or_default(), items.len()),
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}: {}", form(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

#[test]
fn a_picture_is_answered_alike_in_every_form() {
    let server = Lepton::start();
    let ask = |kind: &str, body: &[u8]| ok(exchange(server.address, &post(VISION, kind, body)));
    let jpeg = pictures::jpeg(&pictures::smooth(300, 200));
    let alone = ask("image/jpeg", &jpeg);
    insta::assert_snapshot!(form(&alone), @"{images: [{height: number, label: string, score: number, scores: [{label: string, score: number}; 8], width: number}; 1], model: string, version: number}");

    assert_eq!(ask("application/octet-stream", &jpeg), alone);
    let (kind, body) = multipart(&[("image", &jpeg)]);
    assert_eq!(ask(&kind, &body), alone);
    let text = BASE64_STANDARD.encode(&jpeg);
    assert_eq!(ask("application/json", json!({ "image": text }).to_string().as_bytes()), alone);
    let url = format!("data:image/jpeg;base64,{text}");
    assert_eq!(ask("application/json", json!({ "image": url }).to_string().as_bytes()), alone);

    let three = [&alone["images"][0]; 3].map(Value::clone);
    let (kind, body) = multipart(&[("image", &jpeg), ("image", &jpeg), ("image", &jpeg)]);
    assert_eq!(ask(&kind, &body)["images"], json!(three));
    let many = json!({ "images": [text, text, text] }).to_string();
    assert_eq!(ask("application/json", many.as_bytes())["images"], json!(three));
    let by_name = exchange(server.address, &post("/v1/models/face/predict", "image/jpeg", &jpeg));
    assert_eq!(ok(by_name), alone);
}

#[test]
fn a_picture_stands_upright_whichever_way_the_camera_was_held() {
    let server = Lepton::start();
    let upright = pictures::smooth(120, 80);
    let reference = ok(exchange(server.address, &post(VISION, "image/png", &pictures::png(&upright))));
    let reference = &reference["images"][0];
    for orientation in 1..=8 {
        let stored = pictures::stored_as(&upright, orientation);
        let webp = pictures::extended_webp(&pictures::webp(&stored), Some(orientation));
        for (kind, bytes, tolerance) in [
            ("image/png", pictures::oriented_png(&stored, orientation), 1e-3),
            ("image/webp", webp, 1e-3),
            ("image/jpeg", pictures::oriented_jpeg(&stored, orientation), 0.02),
        ] {
            let answer = ok(exchange(server.address, &post(VISION, kind, &bytes)));
            let image = &answer["images"][0];
            assert_eq!(
                (&image["width"], &image["height"]),
                (&json!(120), &json!(80)),
                "{kind} {orientation}"
            );
            let score = |image: &Value| image["score"].as_f64().expect("a score");
            let difference = (score(image) - score(reference)).abs();
            assert!(difference < tolerance, "{kind} {orientation}: the score differs by {difference}");
        }
    }
}

#[test]
fn sixty_four_texts_are_answered_in_their_order() {
    let server = Lepton::start();
    let words = ["dreadful", "wonderful", "boring", "touching"];
    let texts: Vec<String> = (0..64).map(|i| format!("{} {}", "a".repeat(i % 7 + 1), words[i % 4])).collect();
    let ask = |body: Value| {
        ok(exchange(server.address, &post(TEXT, "application/json", body.to_string().as_bytes())))
    };
    let together = ask(json!({ "texts": texts }));
    let results = together["results"].as_array().expect("results");
    assert_eq!(results.len(), 64);
    for i in [0, 1, 2, 3, 31, 62, 63] {
        let alone = ask(json!({ "text": texts[i] }));
        let alone = &alone["results"][0];
        assert_eq!((&alone["label"], &alone["tokens"]), (&results[i]["label"], &results[i]["tokens"]), "{i}");
        let score = |answer: &Value| answer["score"].as_f64().expect("a score");
        assert!((score(alone) - score(&results[i])).abs() <= 1e-4, "{i}");
    }
}

#[test]
fn a_text_is_answered_with_its_price() {
    let server = Lepton::start();
    let headers = [("content-type", "text/plain"), ("x-request-id", "my-request.7")];
    let response = exchange(server.address, &post_with(TEXT, &headers, b"A warm, funny and moving film."));
    assert_eq!(response.header("x-request-id"), Some("my-request.7"));
    let timing = response.header("server-timing").expect("a price").to_owned();
    let figures: String = timing.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect();
    insta::assert_snapshot!(figures, @r#"queue;dur=, prepare;dur=, infer;dur=, answer;dur=, total;dur=, cpu;dur=, batch;desc="", class;desc="interactive", balance;desc="fast""#);
    let answer = ok(response);
    insta::assert_snapshot!(form(&answer), @"{model: string, results: [{label: string, score: number, scores: [{label: string, score: number}; 2], supported: true, tokens: number, truncated: false}; 1], version: number}");
    assert_eq!(answer["results"][0]["label"], "positive");
    assert_eq!(answer["results"][0]["truncated"], false);

    let cut = exchange(server.address, &post(TEXT, "text/plain", "so very good ".repeat(1000).as_bytes()));
    let cut = &ok(cut)["results"][0];
    assert_eq!((&cut["truncated"], &cut["tokens"]), (&json!(true), &json!(2048)));
}

#[test]
fn the_best_scores_are_as_many_as_asked_for() {
    let server = Lepton::start();
    let jpeg = pictures::jpeg(&pictures::smooth(60, 60));
    for (path, n) in
        [("/v1/vision/classify?detector=none&top_k=3", 3), ("/v1/vision/classify?model=face&top_k=99", 8)]
    {
        let answer = ok(exchange(server.address, &post(path, "image/jpeg", &jpeg)));
        let scores = answer["images"][0]["scores"].as_array().expect("scores").clone();
        assert_eq!(scores.len(), n);
        assert!(scores.is_sorted_by(|a, b| a["score"].as_f64() >= b["score"].as_f64()));
    }
}

#[test]
fn the_models_say_what_they_are() {
    let server = Lepton::start();
    let models = ok(exchange(server.address, &get("/v1/models")));
    let names: Vec<_> =
        models["models"].as_array().expect("models").iter().map(|m| m["name"].clone()).collect();
    assert!(names.contains(&json!("face")) && names.contains(&json!("sentiment")), "{names:?}");
    for model in models["models"].as_array().expect("models") {
        assert!(model["cost"].is_null(), "the list has no tables of costs: {model}");
        let kernels = model["kernels"].as_array().expect("kernels");
        let shares: f64 = kernels.iter().filter_map(|part| part["share"].as_f64()).sum();
        assert!((shares - 1.0).abs() < 0.01, "{model}");
        let precision = &model["precision"];
        assert_eq!(precision["asked"], "auto");
        // What is used depends on the processor; the reason or the evidence is there on each.
        match precision["used"].as_str() {
            Some("bf16") => assert!(precision["largest_difference"].as_f64() <= Some(0.01), "{model}"),
            used => assert!(used == Some("f32") && precision["reason"].is_string(), "{model}"),
        }
    }
    let face = ok(exchange(server.address, &get("/v1/models/face")));
    assert_eq!(face["state"], "ready");
    assert_eq!(face["labels"].as_array().map(Vec::len), Some(8));
    assert!(face["cost"].as_array().is_some_and(|cost| !cost.is_empty()), "{face}");
    assert!(face["licence"].is_string() && face["inputs"].is_array() && face["outputs"].is_array(), "{face}");
    assert_eq!(exchange(server.address, &get("/healthz")).status, 200);
    assert_eq!(exchange(server.address, &get("/readyz")).status, 200);
}

#[test]
fn what_was_answered_and_refused_is_counted() {
    let server = Lepton::start();
    for body in [b"fine".as_slice(), b"fine", b""] {
        exchange(server.address, &post(TEXT, "text/plain", body));
    }
    let metrics = exchange(server.address, &get("/metrics"));
    let value = |name: &str| {
        let line = metrics.text().lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next()).unwrap_or_else(|| panic!("no {name}"));
        value.parse::<f64>().expect("a number")
    };
    assert_eq!(value("lepton_answered_rows_total{model=\"sentiment\",version=\"1\"}"), 2.0);
    assert_eq!(value("lepton_stage_seconds_count{model=\"sentiment\",stage=\"infer\",version=\"1\"}"), 2.0);
    assert_eq!(value("lepton_refusals_total{reason=\"invalid-input\"}"), 1.0);
    assert!(value("lepton_charged_cpu_seconds_total{model=\"sentiment\",version=\"1\"}") > 0.0);
    assert_eq!(value("lepton_queued_rows{model=\"sentiment\",version=\"1\"}"), 0.0);
}

#[test]
fn more_rows_than_the_queue_holds_are_refused_with_a_time_to_come_back() {
    let server = Lepton::start_with(&[("LEPTON_POOL_QUEUE_ROWS", "8"), ("LEPTON_LIMITS_ITEMS", "8")]);
    let texts = |n: usize| {
        let body = json!({ "texts": vec!["fine"; n] }).to_string();
        exchange(server.address, &post(TEXT, "application/json", body.as_bytes()))
    };
    // One model may hold three quarters of the queue while there are others.
    assert_eq!(texts(6).status, 200);
    let refused = texts(7);
    assert_eq!((refused.status, refused.problem().as_str()), (503, "overloaded"));
    assert!(
        refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok_and(|s| s >= 1))
    );
    assert_eq!(texts(6).status, 200, "the refused request left nothing behind");
}

#[test]
fn a_deadline_is_kept_or_refused() {
    let server = Lepton::start();
    let jpeg = pictures::jpeg(&pictures::draw(640, 480));
    for deadline in ["1", "2", "5", "60000"] {
        let headers = [("content-type", "image/jpeg"), ("x-deadline-ms", deadline)];
        let response = exchange(server.address, &post_with(VISION, &headers, &jpeg));
        match response.status {
            200 => {}
            503 => assert_eq!(response.problem(), "overloaded"),
            504 => assert_eq!(response.problem(), "deadline-exceeded"),
            408 => assert_eq!(response.problem(), "request-timeout"),
            other => panic!("{deadline} ms: {other} {}", response.text()),
        }
        assert!(deadline != "60000" || response.status == 200);
    }
}

#[test]
fn a_text_in_another_language_is_answered_as_not_supported() {
    let server = Lepton::start();
    let texts = json!({ "texts": [
        "A gorgeous, witty, seductive movie.", "很好的电影", "Отличный фильм",
        "Ce film est une merveille, je l'ai adoré du début à la fin.",
    ] });
    let answer = ok(exchange(server.address, &post(TEXT, "application/json", texts.to_string().as_bytes())));
    let told: Vec<&Value> =
        answer["results"].as_array().expect("results").iter().map(|one| &one["supported"]).collect();
    assert_eq!(told, [&json!(true), &json!(true), &json!(false), &json!(false)]);
}
