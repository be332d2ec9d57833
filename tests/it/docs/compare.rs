//! What a page shows, against what was printed: the same but for figures, which differ by processor, and for ids.

use serde_json::Value;

/// Numbers of an answer may differ by this share of themselves, or by this: bf16 in place of f32 moves a box by a
/// quarter of a pixel and a score by less than a hundredth.
const SHARE: f64 = 0.01;
const LEAST: f64 = 0.02;

/// Holds an answer to the one that a page shows.
///
/// # Errors
/// The path of the first value that differs, and both.
pub(super) fn json(shown: &Value, printed: &Value, path: &str) -> Result<(), String> {
    let differs = || Err(format!("{path} is shown as {shown}, but {printed} was printed"));
    match (shown, printed) {
        (Value::Object(shown), Value::Object(printed)) => {
            if !shown.keys().eq(printed.keys()) {
                return differs();
            }
            shown.iter().try_for_each(|(key, value)| json(value, &printed[key], &format!("{path}.{key}")))
        }
        (Value::Array(shown), Value::Array(printed)) => {
            if shown.len() != printed.len() {
                return differs();
            }
            let pairs = shown.iter().zip(printed).enumerate();
            pairs.into_iter().try_for_each(|(at, (a, b))| json(a, b, &format!("{path}[{at}]")))
        }
        (Value::Number(_), Value::Number(_)) if path.ends_with("_ms") => Ok(()),
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            if (a - b).abs() <= (SHARE * a.abs()).max(LEAST) { Ok(()) } else { differs() }
        }
        (Value::String(a), Value::String(b)) if masked(a) == masked(b) => Ok(()),
        (Value::Null | Value::Bool(_), _) if shown == printed => Ok(()),
        _ => differs(),
    }
}

/// Holds a printed text to the lines that a page shows, in their order; others may stand between them.
///
/// # Errors
/// The first line that was not printed.
pub(super) fn text(shown: &str, printed: &str) -> Result<(), String> {
    let mut printed_lines = printed.lines().map(masked);
    for line in shown.lines().filter(|line| !is_figure(line)) {
        let wanted = masked(line);
        if !printed_lines.any(|line| line == wanted) {
            return Err(format!("`{line}` was not printed, or not in this order:\n{printed}"));
        }
    }
    Ok(())
}

/// Whether a line is of measurements alone: a row of a table, a share, a choice that rests on the processor.
fn is_figure(line: &str) -> bool {
    let line = line.trim();
    line.is_empty()
        || line.starts_with(|c: char| c.is_ascii_digit())
        || ["precision ", "shape ", "measured "].iter().any(|choice| line.starts_with(choice))
}

/// A text with each number, id and run of blanks made equal: figures are `#`, and so are ids of requests.
fn masked(text: &str) -> String {
    let words = text.split_whitespace().map(|word| {
        if word == "-" {
            // A figure that there were too few answers to tell.
            return "#".to_owned();
        }
        let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if word.split_once('-').is_some_and(|(server, n)| server.len() == 16 && is_hex(server) && is_hex(n)) {
            return "#".to_owned();
        }
        let mut masked = String::new();
        for c in word.chars() {
            let continues = masked.ends_with('#') && (c.is_ascii_digit() || matches!(c, '.' | ','));
            match c {
                _ if continues => {}
                '0'..='9' => masked.push('#'),
                other => masked.push(other),
            }
        }
        masked
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn figures_and_ids_may_differ_and_nothing_else() {
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let shown = value(
        r#"{"a":[{"score":0.99}],"label":"calm","retry_after_ms":5,"box":174.8,"id":"0123456789abcdef-1"}"#,
    );
    let same = r#"{"a":[{"score":0.985}],"label":"calm","retry_after_ms":90,"box":175.1,"id":"aaaa456789abcdef-2c"}"#;
    json(&shown, &value(same), "$").unwrap();
    for (from, to, path) in [
        ("0.985", "0.95", "$.a[0].score"),
        ("calm", "wild", "$.label"),
        ("175.1", "180", "$.box"),
        ("\"retry_after_ms\":90,", "", "$ "),
        ("[{\"score\":0.985}]", "[]", "$.a "),
        ("0.985", "null", "$.a[0].score"),
    ] {
        let error = json(&shown, &value(&same.replace(from, to)), "$").unwrap_err();
        assert!(error.starts_with(path), "{error}");
    }
}

#[test]
fn every_line_that_a_page_shows_is_printed_in_its_order() {
    let printed =
        "MODEL  LOADED IN\nface   93.1 ms\n  precision f32\n  labels a, b\n     shape       1\n 4 0.1\n";
    text("MODEL  LOADED IN\nface   104 ms\n  precision bf16 (auto)\n  labels a, b\n 9 0.2\n", printed)
        .unwrap();
    text("queue;dur=0.111, total;dur=1", "x\nqueue;dur=12.5, total;dur=0.25\n").unwrap();
    for wrong in ["MODEL  LOADED", "  labels a, c", "labels a, b\nface 1 ms", "face 104 us"] {
        assert!(text(wrong, printed).is_err(), "{wrong}");
    }
}
