//! What a request's head says: its parameters, and the form of its body.
//!
//! Invariant: nothing here reads the body, so a bad head is refused before a byte of it is asked for.

use std::borrow::Cow;

use axum::{
    extract::Query,
    http::{
        HeaderMap, Uri,
        header::{CONTENT_ENCODING, CONTENT_TYPE},
    },
};

use super::problem::quote;
use crate::{
    error::Error,
    tasks::{Descriptor, OptionFault, Options},
};

/// What may follow the `?`: what every model's route takes, and the options of the model's task.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    /// The model or pipeline to ask instead of the path's own.
    pub(super) model: Option<String>,
    /// The model that is to find the regions first.
    pub(super) detector: Option<String>,
    /// The class, as it was written.
    pub(super) class: Option<String>,
    /// The balance of latency and cost, as it was written.
    pub(super) balance: Option<String>,
    /// All others, in their order.
    others: Vec<(String, String)>,
    /// Which of `model` and `detector` the route takes.
    taken: &'static [&'static str],
}

/// Parameters that every model's route takes, beside those that it names and the options of the task.
const SHARED: [&str; 2] = ["class", "balance"];

impl Parameters {
    /// Reads the query of a route that takes `taken` among `model` and `detector`. Options are read by
    /// [`Parameters::options`], once the model is known.
    pub(super) fn parse(uri: &Uri, taken: &'static [&'static str]) -> Result<Self, Error> {
        let mut parameters = Self { taken, ..Self::default() };
        if uri.query().is_none() {
            return Ok(parameters);
        }
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| Error::malformed("the query is not of the form name=value&name=value"))?;
        for (name, value) in pairs {
            let again = match name.as_str() {
                "model" if taken.contains(&"model") => parameters.model.replace(value).is_some(),
                "detector" if taken.contains(&"detector") => parameters.detector.replace(value).is_some(),
                "class" => parameters.class.replace(value).is_some(),
                "balance" => parameters.balance.replace(value).is_some(),
                _ => {
                    parameters.others.push((name, value));
                    continue;
                }
            };
            if again {
                return Err(given_twice(&name));
            }
        }
        Ok(parameters)
    }

    /// Refuses any query at all.
    pub(super) fn none(uri: &Uri) -> Result<(), Error> {
        match uri.query() {
            None | Some("") => Ok(()),
            Some(query) => {
                let name = query.split(['=', '&']).next().unwrap_or_default();
                Err(Error::malformed(format!(
                    "unknown query parameter `{}`; this path takes none",
                    quote(name)
                )))
            }
        }
    }

    /// Reads the options of the tasks that answer; refuses any parameter that none of them has, given twice, or malformed.
    pub(super) fn options<'t>(
        &self,
        tasks: impl Iterator<Item = &'static Descriptor> + Clone + 't,
    ) -> Result<Options, Error> {
        let pairs = self.others.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Options::read(pairs, tasks.clone()).map_err(|fault| match fault {
            OptionFault::Unknown(name) => self.unknown(name, tasks),
            OptionFault::Twice(name) => given_twice(name),
            OptionFault::Value { name, value, allowed } => {
                Error::malformed(format!("{name} is `{}`; allowed is {allowed}", quote(value)))
            }
        })
    }

    fn unknown(&self, name: &str, tasks: impl Iterator<Item = &'static Descriptor>) -> Error {
        let mut allowed: Vec<&str> = self.taken.to_vec();
        for option in tasks.flat_map(|task| task.options) {
            if !allowed.contains(&option.name) {
                allowed.push(option.name);
            }
        }
        allowed.extend(SHARED);
        let allowed = allowed.join(", ");
        Error::malformed(format!("unknown query parameter `{}`; allowed are {allowed}", quote(name)))
    }
}

fn given_twice(name: &str) -> Error {
    Error::malformed(format!("the query parameter `{}` is given twice; once is allowed", quote(name)))
}

/// The form of a body, by its `Content-Type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// One encoded image, its format found by looking.
    Image,
    /// `multipart/form-data` with this boundary.
    Multipart(String),
    Json,
    /// One text in UTF-8.
    PlainText,
}

const IMAGE_FORMS: &str = "allowed are any image type such as image/jpeg, application/octet-stream, \
    multipart/form-data with `image` parts, and application/json with `image` or `images`";
const TEXT_FORMS: &str = "allowed are application/json with `text` or `texts`, and text/plain in UTF-8";

/// The form of a body that brings images. Without a `Content-Type` it is one image.
///
/// What an image is called does not matter, since its bytes tell: `image/jpg`, `image/pjpeg` and
/// `image/x-png` are about as common as the registered names.
pub(super) fn image_form(headers: &HeaderMap) -> Result<Form, Error> {
    require_identity(headers)?;
    let Some(media_type) = MediaType::of(headers)? else { return Ok(Form::Image) };
    match media_type.essence.as_str() {
        "multipart/form-data" => media_type.boundary().map(Form::Multipart),
        // Base64 is ASCII, which is the same in every charset that a client may name.
        essence if is_json(essence) => Ok(Form::Json),
        essence if essence.starts_with("image/") || BINARY.contains(&essence) => Ok(Form::Image),
        other => Err(unsupported_type(other, IMAGE_FORMS)),
    }
}

/// What clients call bytes of which they know no more.
const BINARY: [&str; 5] = [
    "application/octet-stream",
    "binary/octet-stream",
    "application/x-octet-stream",
    "application/binary",
    "*/*",
];

fn is_json(essence: &str) -> bool {
    matches!(essence, "application/json" | "text/json" | "application/x-json") || essence.ends_with("+json")
}

/// The form of a body that brings texts.
pub(super) fn text_form(headers: &HeaderMap) -> Result<Form, Error> {
    require_identity(headers)?;
    let Some(media_type) = MediaType::of(headers)? else {
        return Err(Error::Unsupported {
            got: "a body without a content type".to_owned(),
            allowed: TEXT_FORMS,
        });
    };
    match media_type.essence.as_str() {
        essence if is_json(essence) => media_type.require_utf8(TEXT_FORMS).map(|()| Form::Json),
        "text/plain" => media_type.require_utf8(TEXT_FORMS).map(|()| Form::PlainText),
        other => Err(unsupported_type(other, TEXT_FORMS)),
    }
}

fn unsupported_type(essence: &str, allowed: &'static str) -> Error {
    // The commonest slip of all: curl names this type by itself.
    let hint = match essence {
        "application/x-www-form-urlencoded" => {
            ", which curl claims unless `-H content-type:` says otherwise,"
        }
        _ => "",
    };
    Error::Unsupported { got: format!("the content type `{}`{hint}", quote(essence)), allowed }
}

/// Refuses compressed bodies: what is small on the wire and large in memory has no place here.
fn require_identity(headers: &HeaderMap) -> Result<(), Error> {
    for value in headers.get_all(CONTENT_ENCODING) {
        if !value.as_bytes().eq_ignore_ascii_case(b"identity") {
            let got = format!("the content encoding `{}`", quote(&String::from_utf8_lossy(value.as_bytes())));
            return Err(Error::Unsupported {
                got,
                allowed: "send the body as it is, without a content encoding",
            });
        }
    }
    Ok(())
}

/// A header value of the form `essence; name=value; name="value"`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MediaType {
    /// In lower case.
    pub(super) essence: String,
    /// Names in lower case, values as they were written, without their quotes.
    parameters: Vec<(String, String)>,
}

impl MediaType {
    fn of(headers: &HeaderMap) -> Result<Option<Self>, Error> {
        let mut values = headers.get_all(CONTENT_TYPE).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Error::malformed("more than one content-type header; one is allowed"));
        }
        let text = String::from_utf8_lossy(value.as_bytes());
        Ok((!text.trim().is_empty()).then(|| Self::parse(&text)))
    }

    /// Reads a header value. What stands between two `;` without a `=` is no parameter, nor is anything
    /// from a string in quotes on that does not end.
    pub(super) fn parse(text: &str) -> Self {
        let (essence, mut rest) = text.split_once(';').unwrap_or((text, ""));
        let mut parameters = Vec::new();
        loop {
            rest = rest.trim_start_matches([';', ' ', '\t']);
            if rest.is_empty() {
                break;
            }
            let word = &rest[..rest.find(';').unwrap_or(rest.len())];
            let Some((name, _)) = word.split_once('=') else {
                rest = &rest[word.len()..];
                continue;
            };
            let Some((value, after)) = parameter_value(rest[name.len() + 1..].trim_start()) else { break };
            parameters.push((name.trim().to_ascii_lowercase(), value.into_owned()));
            rest = after;
        }
        Self { essence: essence.trim().to_ascii_lowercase(), parameters }
    }

    /// Finds a parameter by its lower-case name.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn require_utf8(&self, allowed: &'static str) -> Result<(), Error> {
        match self.parameter("charset") {
            Some(charset)
                if !["utf-8", "utf8", "us-ascii"].contains(&charset.to_ascii_lowercase().as_str()) =>
            {
                Err(Error::Unsupported { got: format!("the charset `{}`", quote(charset)), allowed })
            }
            _ => Ok(()),
        }
    }

    /// RFC 2046, section 5.1.1: 1 to 70 characters.
    fn boundary(&self) -> Result<String, Error> {
        match self.parameter("boundary") {
            Some(boundary) if (1..=70).contains(&boundary.len()) => Ok(boundary.to_owned()),
            _ => Err(Error::malformed(
                "the content type multipart/form-data names no boundary of 1 to 70 characters",
            )),
        }
    }
}

/// Reads a token, or a string in quotes, up to the `;` after it; gives the value and what follows.
///
/// File names come with quotes and backslashes that nobody escaped: a quote ends the string only where a
/// `;` or nothing follows it, and a backslash before such a quote is part of the name where no other quote
/// could end it.
fn parameter_value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return Some((text[..end].trim().into(), &text[end..]));
    };
    let ends_at = |at: usize| {
        let after = quoted[at + 1..].trim_start();
        (after.is_empty() || after.starts_with(';')).then_some(after)
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => match ends_at(at) {
                Some(after) => return Some((value.into(), after)),
                None => value.push(c),
            },
            '\\' => match chars.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((at, '"')) if ends_at(at).is_some() && !quoted[at + 1..].contains('"') => {
                    value.push(c);
                    return ends_at(at).map(|after| (value.into(), after));
                }
                Some((_, escaped)) => value.push(escaped),
                // A path of Windows, as old browsers send it.
                None => value.push(c),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::tasks::descriptor_of;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn parameters(query: &str) -> Result<Parameters, Error> {
        let uri: Uri = format!("/v1/vision/classify?{query}").parse().unwrap();
        Parameters::parse(&uri, &["model"])
    }

    fn options(query: &str) -> Result<Options, Error> {
        let tasks = ["face-detection", "image-classification"].map(|name| descriptor_of(name).unwrap());
        parameters(query)?.options(tasks.into_iter())
    }

    #[test]
    fn known_parameters_are_read() {
        let read = parameters("model=my%20face&top_k=3").unwrap();
        assert_eq!(read.model.as_deref(), Some("my face"));
        let options = options("model=my%20face&top_k=3&side=640&class=batch").unwrap();
        assert_eq!((options.integer("top_k"), options.integer("side")), (Some(3), Some(640)));
        assert!(parameters("").unwrap().options(std::iter::empty()).unwrap().is_empty());
    }

    #[test]
    fn bad_parameters_are_refused_with_what_is_allowed() {
        let text = |query: &str| options(query).unwrap_err().to_string();
        insta::assert_snapshot!(text("topk=3"), @"unknown query parameter `topk`; allowed are model, side, top_k, class, balance");
        insta::assert_snapshot!(text("detector=none"), @"unknown query parameter `detector`; allowed are model, side, top_k, class, balance");
        insta::assert_snapshot!(text("top_k=0"), @"top_k is `0`; allowed is a whole number of labels, at least 1");
        insta::assert_snapshot!(text("top_k=-1"), @"top_k is `-1`; allowed is a whole number of labels, at least 1");
        insta::assert_snapshot!(text("top_k=1&top_k=2"), @"the query parameter `top_k` is given twice; once is allowed");
        let none = Parameters::none(&"/?a=1".parse().unwrap()).unwrap_err().to_string();
        insta::assert_snapshot!(none, @"unknown query parameter `a`; this path takes none");
        insta::assert_snapshot!(text("class=batch&class=batch"), @"the query parameter `class` is given twice; once is allowed");
    }

    #[test]
    fn image_forms_are_told_apart() {
        let form = |content_type: &str| image_form(&headers(&[("content-type", content_type)]));
        assert_eq!(image_form(&HeaderMap::new()), Ok(Form::Image));
        assert_eq!(form("IMAGE/JPEG"), Ok(Form::Image));
        assert_eq!(form("application/json; charset=UTF-8"), Ok(Form::Json));
        assert_eq!(form("multipart/form-data; boundary=\"a;b\""), Ok(Form::Multipart("a;b".to_owned())));
        assert!(matches!(form("multipart/form-data"), Err(Error::Malformed(_))));
        assert!(matches!(
            form(&format!("multipart/form-data; boundary={}", "x".repeat(71))),
            Err(Error::Malformed(_))
        ));
        for refused in ["text/html", "video/mp4", "application/pdf", "text/plain", "imagejpeg", "image"] {
            let error = form(refused).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("the content type `{refused}` is not served; allowed are")),
                "{error}"
            );
        }
        insta::assert_snapshot!(form("video/mp4").unwrap_err(), @"the content type `video/mp4` is not served; allowed are any image type such as image/jpeg, application/octet-stream, multipart/form-data with `image` parts, and application/json with `image` or `images`");
        let curl = form("application/x-www-form-urlencoded").unwrap_err().to_string();
        assert!(curl.contains("which curl claims unless"), "{curl}");
        assert!(matches!(form("multipart/form-data; boundary=\"open"), Err(Error::Malformed(_))));
    }

    #[test]
    fn an_image_is_an_image_whatever_its_client_calls_it() {
        for name in [
            "image/jpg",
            "image/pjpeg",
            "image/x-png",
            "image/gif",
            "image/bmp",
            "image/x-ms-bmp",
            "image/tiff",
            "image/heic",
            "image/*",
            "image/jpeg;",
            "image/jpeg; name",
            "image/jpeg; name=\"a\"b.jpg\"",
            "image/jpeg; charset=\"open",
            "binary/octet-stream",
            "application/octet-stream",
            "*/*",
            "",
            " ",
        ] {
            assert_eq!(image_form(&headers(&[("content-type", name)])), Ok(Form::Image), "{name}");
        }
        for json in ["application/json; charset=iso-8859-1", "text/json", "application/vnd.api+json"] {
            assert_eq!(image_form(&headers(&[("content-type", json)])), Ok(Form::Json), "{json}");
        }
    }

    #[test]
    fn text_forms_are_told_apart() {
        let form = |content_type: &str| text_form(&headers(&[("content-type", content_type)]));
        assert_eq!(form("text/plain;charset=utf-8"), Ok(Form::PlainText));
        assert_eq!(form("application/json"), Ok(Form::Json));
        insta::assert_snapshot!(form("text/plain; charset=latin1").unwrap_err(), @"the charset `latin1` is not served; allowed are application/json with `text` or `texts`, and text/plain in UTF-8");
        insta::assert_snapshot!(text_form(&HeaderMap::new()).unwrap_err(), @"a body without a content type is not served; allowed are application/json with `text` or `texts`, and text/plain in UTF-8");
        assert!(matches!(form("image/png"), Err(Error::Unsupported { .. })));
    }

    #[test]
    fn a_compressed_body_is_refused() {
        let both = [("content-type", "text/plain"), ("content-encoding", "gzip")];
        insta::assert_snapshot!(text_form(&headers(&both)).unwrap_err(), @"the content encoding `gzip` is not served; send the body as it is, without a content encoding");
        assert_eq!(image_form(&headers(&[("content-encoding", "identity")])), Ok(Form::Image));
    }

    proptest! {
        #[test]
        fn a_quoted_parameter_comes_back_as_it_was(value in "[^\u{0}-\u{1f}]{0,40}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let parsed = MediaType::parse(&format!("a/b; x=\"{quoted}\" ; y=z"));
            prop_assert_eq!(parsed.parameter("x"), Some(value.as_str()));
            prop_assert_eq!(parsed.parameter("y"), Some("z"));
        }

        #[test]
        fn any_header_value_is_read_or_refused(text in ".{0,80}") {
            let _ = MediaType::parse(&text);
        }
    }
}
