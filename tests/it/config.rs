//! The shipped `config.toml` says what the program does without it.

use std::path::Path;

use lepton::config::{Config, Options};

fn shipped() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml")).unwrap()
}

#[test]
fn every_setting_stands_in_the_shipped_file_at_its_default() {
    let options = Options::from_toml("config.toml", &shipped()).unwrap();
    let missing: Vec<&str> = options
        .values()
        .into_iter()
        .filter(|(_, value)| value.is_none())
        .map(|(setting, _)| setting.key)
        .collect();
    assert_eq!(missing, [""; 0], "settings without a line in config.toml");
    assert_eq!(options.resolve().unwrap(), Config::default());
}

#[test]
fn every_setting_of_the_shipped_file_has_a_comment_above_it() {
    let text = shipped();
    let lines: Vec<&str> = text.lines().collect();
    let settings = (0..lines.len()).filter(|i| lines[*i].contains(" = ") && !lines[*i].starts_with('#'));
    let bare: Vec<&str> = settings.filter(|i| !lines[i - 1].starts_with('#')).map(|i| lines[i]).collect();
    assert_eq!(bare, [""; 0], "settings without a comment");
}
