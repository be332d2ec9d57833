//! One Rust file, read for the paths in it.

/// A path such as `std::thread::spawn`, from the crate's root where it is relative to a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub line: usize,
    pub path: Vec<String>,
    pub place: Place,
}

/// Where a path stands. In code, a single word is a variable as often as not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Use,
    Code,
}

/// A file, its comments, texts and tests taken out.
#[derive(Debug)]
pub(super) struct Source {
    /// Relative to the repository, with forward slashes.
    pub name: String,
    pub n_lines: usize,
    /// Every path in the code; those of `use` trees in full.
    pub named: Vec<Named>,
    /// The lines that say `unsafe`.
    pub unsafe_lines: Vec<usize>,
}

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let module = module_of(name);
        let tokens = if is_test(name) { Vec::new() } else { without_tests(tokens(&blanked(text))) };
        let named = named(&tokens, &module);
        let unsafe_lines =
            tokens.iter().filter(|(_, token)| token == "unsafe").map(|(line, _)| *line).collect();
        Self { name: name.to_owned(), n_lines: text.lines().count(), named, unsafe_lines }
    }

    /// The room that the file belongs to: the first part of its path below `src`.
    pub(super) fn room(&self) -> &str {
        let below = self.name.strip_prefix("src/").unwrap_or(&self.name);
        below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
    }
}

fn is_test(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.contains("/tests/")
}

/// The module's path below the crate: `src/pool/worker.rs` is `pool::worker`.
fn module_of(name: &str) -> Vec<String> {
    let path = name.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let parts = path.split('/').map(str::to_owned);
    if matches!(path, "lib" | "main") { Vec::new() } else { parts.collect() }
}

/// The text with comments, strings and character literals blanked, line by line as it was.
fn blanked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skipped(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself where none begins.
fn skipped(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match rest {
        ['/', '/', ..] => at + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => {
            let (mut depth, mut i) = (0, at);
            while i < chars.len() {
                match &chars[i..] {
                    ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
                    ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            i
        }
        ['r', '"' | '#', ..] if !after_word => raw_end(chars, at + 1).unwrap_or(at),
        ['b', 'r', '"' | '#', ..] if !after_word => raw_end(chars, at + 2).unwrap_or(at),
        ['"', ..] => quoted_end(chars, at, '"'),
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => quoted_end(chars, at, '\''),
        _ => at,
    }
}

fn quoted_end(chars: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// The end of a raw string whose hashes begin at `at`; `None` where it is a raw identifier.
fn raw_end(chars: &[char], at: usize) -> Option<usize> {
    let n_hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    let mut i = at + n_hashes;
    if chars.get(i) != Some(&'"') {
        return None;
    }
    loop {
        i += 1;
        if i >= chars.len() {
            return Some(i);
        }
        let closed = chars[i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').count() >= n_hashes;
        if closed {
            return Some(i + 1 + n_hashes);
        }
    }
}

/// A word, `::`, or one other sign, with its line.
type Token = (usize, String);

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for (line_idx, line) in text.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if first.is_alphanumeric() || first == '_' {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push((line_idx + 1, rest[..length].to_owned()));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Cuts out every item below `#[cfg(test)]`.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let marked =
            MARK.iter().enumerate().all(|(i, sign)| tokens.get(at + i).is_some_and(|(_, t)| t == sign));
        if !marked {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        while let Some((_, token)) = tokens.get(at) {
            at += 1;
            match token.as_str() {
                "{" => depth += 1,
                "}" if depth == 1 => break,
                "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => {}
            }
        }
    }
    kept
}

/// The modules in the file and the names that its `use` trees bring, so that `image::Rect` after
/// `use crate::image` is not taken for a library.
fn named(tokens: &[Token], module: &[String]) -> Vec<Named> {
    let mut named = Vec::new();
    let mut known: Vec<(String, Vec<String>)> = Vec::new();
    let mut code: Vec<Token> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let word = tokens[at].1.as_str();
        if word == "mod" && tokens.get(at + 1).is_some() {
            let child = tokens[at + 1].1.clone();
            let mut path = vec!["crate".to_owned()];
            path.extend_from_slice(module);
            path.push(child.clone());
            known.push((child, path));
            at += 2;
        } else if word == "use" {
            let end = at + tokens[at..].iter().position(|(_, t)| t == ";").unwrap_or(tokens.len() - at);
            for (line, path, alias) in tree(&tokens[at + 1..end]) {
                let path = absolute(path, module, &[]);
                known.push((alias, path.clone()));
                named.push(Named { line, path, place: Place::Use });
            }
            at = end;
        } else {
            code.push(tokens[at].clone());
            at += 1;
        }
    }
    // A module that the file declares may be named by its `use` trees before.
    let declared = known.clone();
    for entry in &mut named {
        let path = std::mem::take(&mut entry.path);
        entry.path = absolute(path, module, &declared);
    }
    let in_code = |(line, path)| Named { line, path: absolute(path, module, &known), place: Place::Code };
    named.extend(inline(&code).map(in_code));
    named
}

/// Paths in the code: words joined by `::`, and single words.
fn inline(code: &[Token]) -> impl Iterator<Item = (usize, Vec<String>)> {
    let is_word = |token: &str| token.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let mut paths: Vec<(usize, Vec<String>)> = Vec::new();
    let mut joined = false;
    for (i, (line, token)) in code.iter().enumerate() {
        if token == "::" {
            joined = i > 0 && is_word(&code[i - 1].1);
        } else if is_word(token) {
            match paths.last_mut() {
                Some((_, path)) if joined => path.push(token.clone()),
                _ => paths.push((*line, vec![token.clone()])),
            }
            joined = false;
        } else {
            joined = false;
        }
    }
    paths.into_iter()
}

/// Every path of a `use` tree in full, with its line and the name that it brings.
fn tree(tokens: &[Token]) -> Vec<(usize, Vec<String>, String)> {
    let mut found = Vec::new();
    let mut stack: Vec<Vec<String>> = Vec::new();
    let mut prefix: Vec<String> = Vec::new();
    let mut alias: Option<String> = None;
    let (mut line, mut fresh) = (0, false);
    let mut i = 0;
    while i <= tokens.len() {
        let token = tokens.get(i).map_or(",", |(_, token)| token.as_str());
        match token {
            "::" => {}
            "{" => {
                stack.push(prefix.clone());
                fresh = false;
            }
            "," | "}" => {
                if fresh {
                    if prefix.last().is_some_and(|last| last == "self") && prefix.len() > 1 {
                        prefix.pop();
                    }
                    let name = alias.take().or_else(|| prefix.last().cloned()).unwrap_or_default();
                    found.push((line, prefix.clone(), name));
                }
                fresh = false;
                if token == "}" {
                    stack.pop();
                }
                prefix = stack.last().cloned().unwrap_or_default();
            }
            "as" => {
                alias = tokens.get(i + 1).map(|(_, name)| name.clone());
                i += 1;
            }
            word => {
                line = tokens[i].0;
                fresh = true;
                prefix.push(word.to_owned());
            }
        }
        i += 1;
    }
    found
}

/// A path from the crate's root where its first word is `self`, `super` or a name that is known here.
fn absolute(path: Vec<String>, module: &[String], known: &[(String, Vec<String>)]) -> Vec<String> {
    let Some(first) = path.first() else { return path };
    if first == "self" || first == "super" {
        let n_up = path.iter().take_while(|part| *part == "super").count();
        let n_words = if first == "self" { 1 } else { n_up };
        let inside = &module[..module.len().saturating_sub(n_up)];
        return [&["crate".to_owned()], inside, &path[n_words..]].concat();
    }
    let bound = known.iter().find(|(name, target)| name == first && *target != path && target.len() > 1);
    match bound {
        Some((_, target)) if path.len() > 1 => [target.as_slice(), &path[1..]].concat(),
        _ => path,
    }
}
