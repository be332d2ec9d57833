//! Whether a text is in one of the languages that its model reads.
//!
//! Invariant: a text counts as foreign only where much speaks for it: a quarter of its letters in another
//! script, or its letters and words where it is long enough to tell.

use super::Language;

/// Bytes of a text that are looked at, which bounds the work.
const MOST_BYTES: usize = 256;

/// Letters of Latin script that a text must have before its language is guessed: of texts with fewer, one in a
/// hundred would be guessed wrong.
const FEWEST_LETTERS: usize = 24;

/// Letters of another script that may always stand in a text: units, a name in brackets.
const STRAY_LETTERS: usize = 2;

/// Whether a model reads the language of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Supported {
    /// The model does not say which languages it reads.
    #[default]
    Unsaid,
    /// It does, or the text is too short to tell.
    Yes,
    No,
}

impl Supported {
    /// What to tell a caller; nothing where the model does not say.
    pub fn told(self) -> Option<bool> {
        match self {
            Self::Unsaid => None,
            Self::Yes => Some(true),
            Self::No => Some(false),
        }
    }

    /// Looks at the beginning of a text.
    pub fn of(text: &str, languages: &[Language]) -> Self {
        if languages.is_empty() {
            return Self::Unsaid;
        }
        let text = &text[..text.floor_char_boundary(MOST_BYTES)];
        let (mut letters, mut latin, mut foreign) = (0, 0, 0);
        for letter in text.chars().filter(|c| c.is_alphabetic()) {
            let script = Script::of(letter);
            letters += 1;
            latin += usize::from(script == Script::Latin);
            foreign += usize::from(!languages.iter().any(|language| scripts(*language).contains(&script)));
        }
        if foreign > STRAY_LETTERS && foreign * 4 > letters {
            return Self::No;
        }
        let can_tell = latin >= FEWEST_LETTERS && latin * 2 > letters;
        match can_tell.then(|| whichlang::detect_language(text)) {
            Some(found) if !languages.contains(&language(found)) => Self::No,
            _ => Self::Yes,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    Latin,
    Han,
    Kana,
    Hangul,
    Arabic,
    Cyrillic,
    Devanagari,
    Other,
}

impl Script {
    /// The script of a letter, by its block.
    fn of(letter: char) -> Self {
        match letter {
            '\0'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' | '\u{ff21}'..='\u{ff5a}' => Self::Latin,
            '\u{3005}'..='\u{3007}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{323af}' => Self::Han,
            '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9f}' => Self::Kana,
            '\u{1100}'..='\u{11ff}'
            | '\u{3130}'..='\u{318f}'
            | '\u{a960}'..='\u{a97f}'
            | '\u{ac00}'..='\u{d7ff}' => Self::Hangul,
            '\u{600}'..='\u{6ff}'
            | '\u{750}'..='\u{77f}'
            | '\u{fb50}'..='\u{fdff}'
            | '\u{fe70}'..='\u{feff}' => Self::Arabic,
            '\u{400}'..='\u{52f}' => Self::Cyrillic,
            '\u{900}'..='\u{97f}' => Self::Devanagari,
            _ => Self::Other,
        }
    }
}

/// The scripts that a language is written in.
fn scripts(language: Language) -> &'static [Script] {
    match language {
        Language::Arabic => &[Script::Arabic],
        Language::Chinese => &[Script::Han],
        Language::Hindi => &[Script::Devanagari],
        Language::Japanese => &[Script::Han, Script::Kana],
        Language::Korean => &[Script::Hangul, Script::Han],
        Language::Russian => &[Script::Cyrillic],
        Language::Dutch
        | Language::English
        | Language::French
        | Language::German
        | Language::Italian
        | Language::Portuguese
        | Language::Spanish
        | Language::Swedish
        | Language::Turkish
        | Language::Vietnamese => &[Script::Latin],
    }
}

fn language(found: whichlang::Lang) -> Language {
    use whichlang::Lang;
    match found {
        Lang::Ara => Language::Arabic,
        Lang::Cmn => Language::Chinese,
        Lang::Deu => Language::German,
        Lang::Eng => Language::English,
        Lang::Fra => Language::French,
        Lang::Hin => Language::Hindi,
        Lang::Ita => Language::Italian,
        Lang::Jpn => Language::Japanese,
        Lang::Kor => Language::Korean,
        Lang::Nld => Language::Dutch,
        Lang::Por => Language::Portuguese,
        Lang::Rus => Language::Russian,
        Lang::Spa => Language::Spanish,
        Lang::Swe => Language::Swedish,
        Lang::Tur => Language::Turkish,
        Lang::Vie => Language::Vietnamese,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Supported {
        Supported::of(text, &[Language::English, Language::Chinese])
    }

    #[test]
    fn texts_in_the_models_languages_are_supported() {
        for text in [
            "A gorgeous, witty, seductive movie.",
            "good",
            "ok",
            "5/5",
            "👍",
            "很好的电影，我非常喜欢！",
            "這本書寫得真好",
            "这个 app 的 UI 很 nice",
            "The café was très chic, and the crème brûlée the best that I have had in a long time.",
            "Ω and Москва are in this English text, which is about something else altogether",
        ] {
            assert_eq!(read(text), Supported::Yes, "{text}");
        }
    }

    #[test]
    fn texts_in_others_are_not() {
        for text in [
            "Ce film est une merveille, je l'ai adoré du début à la fin.",
            "Der Kellner war unfreundlich und das Essen war kalt.",
            "La comida estaba fría y el camarero fue muy grosero con nosotros.",
            "とても良い映画です。",
            "Отличный фильм",
            "아주 좋은 영화",
            "فيلم رائع",
            "สวัสดี ดีมาก",
            "סרט טוב",
            "बहुत अच्छी फ़िल्म",
        ] {
            assert_eq!(read(text), Supported::No, "{text}");
        }
    }

    #[test]
    fn a_model_that_names_no_languages_says_nothing() {
        assert_eq!(Supported::of("Отличный фильм", &[]), Supported::Unsaid);
        assert_eq!(Supported::of("Отличный фильм", &[Language::Russian]), Supported::Yes);
    }
}
