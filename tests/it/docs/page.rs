//! A page of documentation, as the blocks that a reader would copy.

/// What a page says about one of its blocks, in a comment on the line before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Note {
    /// `<!-- not run: REASON -->`
    NotRun(String),
    /// `<!-- prints: COMMAND -->`: the block is what the command prints.
    PrintedBy(String),
}

/// A fenced block of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CodeBlock {
    /// The line of its opening fence, from 1.
    pub(super) line: usize,
    pub(super) language: String,
    pub(super) text: String,
    pub(super) note: Option<Note>,
}

/// Reads the blocks of a page.
///
/// # Errors
/// The line of a fence that is not closed, or of a comment that begins as a note and is none.
pub(super) fn blocks(page: &str) -> Result<Vec<CodeBlock>, String> {
    let mut found = Vec::new();
    let mut note = None;
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let mut text = String::new();
            loop {
                match lines.next() {
                    Some((_, "```")) => break,
                    Some((_, line)) => text.extend([line, "\n"]),
                    None => return Err(format!("the block of line {} does not end", at + 1)),
                }
            }
            found.push(CodeBlock { line: at + 1, language: language.to_owned(), text, note: note.take() });
        } else if let Some(comment) = line.strip_prefix("<!-- ") {
            let comment = comment.strip_suffix(" -->");
            note = match comment.and_then(|comment| comment.split_once(": ")) {
                Some(("not run", reason)) if reason.len() > 10 => Some(Note::NotRun(reason.to_owned())),
                Some(("prints", command)) => Some(Note::PrintedBy(command.to_owned())),
                _ => return Err(format!("line {} is no note about a block: {line}", at + 1)),
            };
        } else if note.is_some() {
            return Err(format!("the note before line {} stands before no block", at + 1));
        }
    }
    Ok(found)
}

/// The files of the repository that a page links to, relative to the page.
pub(super) fn links(page: &str) -> Vec<&str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let files = targets.map(|(target, _)| target.split('#').next().unwrap_or_default());
    files.filter(|file| !file.is_empty() && !file.contains("://")).collect()
}

#[test]
fn a_page_is_read_as_its_blocks_with_what_it_says_of_them() {
    let page = "# A\n```sh\necho\n```\ntext\n<!-- not run: needs a browser -->\n```html\n<p>\n```\n\
                <!-- prints: lepton check -->\n```text\nx\n\ny\n```\n";
    let block = |line, language: &str, text: &str, note| CodeBlock {
        line,
        language: language.to_owned(),
        text: text.to_owned(),
        note,
    };
    let expected = [
        block(2, "sh", "echo\n", None),
        block(7, "html", "<p>\n", Some(Note::NotRun("needs a browser".to_owned()))),
        block(11, "text", "x\n\ny\n", Some(Note::PrintedBy("lepton check".to_owned()))),
    ];
    assert_eq!(blocks(page).unwrap(), expected);
    for wrong in [
        "```sh\n",
        "<!-- not run -->\n```sh\n```\n",
        "<!-- not run: no -->\n```sh\n```\n",
        "<!-- prints: a b -->\n\n```text\n```\n",
    ] {
        assert!(blocks(wrong).is_err(), "{wrong}");
    }
    assert_eq!(links("[a](b/c.md#d) ![e](f.jpg) [g](https://h) [i](#j)"), ["b/c.md", "f.jpg"]);
}
