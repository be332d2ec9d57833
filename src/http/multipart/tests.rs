//! Forms as clients write them, sound and broken.

use proptest::prelude::*;

use super::*;

const IMAGES: Expected = Expected { field: "image", many: "images", most: 3 };

fn part(name: &str, content: &[u8]) -> Vec<u8> {
    let mut part =
        format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a;b.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n")
            .into_bytes();
    part.extend_from_slice(content);
    part.extend_from_slice(b"\r\n");
    part
}

fn form(contents: &[&[u8]]) -> Bytes {
    let mut body: Vec<u8> = contents.iter().flat_map(|content| part("image", content)).collect();
    body.extend_from_slice(b"--XX--\r\n");
    body.into()
}

fn cut_parts(body: &Bytes) -> Result<Vec<Part>, Error> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(parts(body, "XX", IMAGES))
}

fn cut(body: &Bytes) -> Result<Vec<Bytes>, Error> {
    Ok(cut_parts(body)?.into_iter().map(|part| part.content).collect())
}

fn refusal(body: impl Into<Bytes>) -> String {
    match cut(&body.into()) {
        Err(Error::Malformed(text)) => text.into_owned(),
        other => panic!("expected a malformed body, found {other:?}"),
    }
}

#[test]
fn parts_are_slices_of_the_body() {
    let body = form(&[b"one", b"", b"\r\n--X three\r\n"]);
    let parts = cut(&body).unwrap();
    assert_eq!(parts, [&b"one"[..], b"", b"\r\n--X three\r\n"]);
    assert!(body.as_ptr_range().contains(&parts[0].as_ptr()));
}

#[test]
fn a_preamble_and_an_epilogue_are_skipped() {
    let mut body = b"not for us\r\n".to_vec();
    body.extend_from_slice(&form(&[b"one"]));
    body.extend_from_slice(b"nor this");
    assert_eq!(cut(&body.into()).unwrap(), [&b"one"[..]]);
}

#[test]
fn what_is_not_a_form_is_refused() {
    insta::assert_snapshot!(refusal("--YY\r\n"), @"the multipart body does not contain the boundary that its content type names");
    insta::assert_snapshot!(refusal("--XXjunk\r\n"), @"a boundary in the multipart body is followed by neither a line break nor `--`");
    insta::assert_snapshot!(refusal("--XX\r\nContent-Disposition: form-data"), @"the head of part 0 of the multipart body does not end within 4096 bytes");
    insta::assert_snapshot!(refusal("--XX\r\nContent-Type: image/png\r\n\r\nabc\r\n--XX--"), @r#"part 0 of the multipart body has no name; expected `content-disposition: form-data; name="image"`"#);
    insta::assert_snapshot!(refusal([part("image", b"a"), part("file", b"b")].concat()), @"part 1 of the multipart body is named `file`; allowed is `image`");
    let open = form(&[b"one", b"two"]);
    insta::assert_snapshot!(refusal(open.slice(..open.len() - 12)), @"part 1 of the multipart body has no end: the closing boundary is missing");
}

#[test]
fn a_form_without_parts_is_invalid() {
    let error = cut(&Bytes::from_static(b"--XX--\r\n")).unwrap_err();
    assert_eq!(error, Error::invalid("the multipart body has no part; expected 1 to 3 named `image`"));
}

#[test]
fn a_delimiter_across_two_steps_is_found() {
    for length in STEP - 60..STEP + 10 {
        let content = vec![b'\r'; length];
        assert!(cut(&form(&[&content, b"next"])).unwrap() == [&content[..], b"next"], "{length}");
    }
}

#[test]
fn a_part_too_many_is_too_large() {
    let error = cut(&form(&[b"a".as_slice(); 10_000])).unwrap_err();
    assert_eq!(error, Error::TooLarge { what: "images", got: Amount::More, limit: 3 });
}

/// What well-known clients write for a file "a.jpg" of the bytes FILE, in the field "image".
const CLIENTS: [(&str, &str); 15] = [
    (
        "a browser",
        "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.jpg\"\r\nContent-Type: image/jpeg\r\n\r\nFILE\r\n--XX--\r\n",
    ),
    (
        "curl",
        "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a \\\"b\\\".jpg\"\r\nContent-Type: image/jpeg\r\n\r\nFILE\r\n--XX--\r\n",
    ),
    (
        "requests",
        "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename*=utf-8''%C3%A9.jpg\r\n\r\nFILE\r\n--XX--\r\n",
    ),
    (
        "Java's HttpClient by hand",
        "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.jpg\"\r\nContent-Type: null\r\n\r\nFILE\r\n--XX--",
    ),
    (
        "OkHttp",
        "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.jpg\"\r\nContent-Type: image/*\r\nContent-Length: 4\r\n\r\nFILE\r\n--XX--\r\n",
    ),
    (
        ".NET",
        "--XX\r\nContent-Type: image/jpeg\r\nContent-Disposition: form-data; name=image; filename=a.jpg; filename*=utf-8''a.jpg\r\n\r\nFILE\r\n--XX--\r\n",
    ),
    (
        "Apache HttpClient",
        "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.jpg\"\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\nFILE\r\n--XX--\r\n",
    ),
    (
        "axios with a list",
        "--XX\r\nContent-Disposition: form-data; name=\"images[]\"; filename=\"a.jpg\"\r\n\r\nFILE\r\n--XX--\r\n",
    ),
    (
        "an old browser, a raw quote",
        "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"my \"best\" face.jpg\"\r\n\r\nFILE\r\n--XX--\r\n",
    ),
    (
        "an old browser, a quote first",
        "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"\"a\".jpg\"\r\n\r\nFILE\r\n--XX--\r\n",
    ),
    (
        "Internet Explorer, a path",
        "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"C:\\new\\a.jpg\"\r\n\r\nFILE\r\n--XX--\r\n",
    ),
    (
        "the file name first",
        "--XX\r\nContent-Disposition: form-data; filename=\"a; \"name=x\".jpg\"; name=\"image\"\r\n\r\nFILE\r\n--XX--\r\n",
    ),
    (
        "folded lines",
        "--XX\r\nContent-Disposition: form-data;\r\n name=\"image\";\r\n\tfilename=\"a.jpg\"\r\nContent-Type: image/jpeg;\r\n name=x\r\n\r\nFILE\r\n--XX--\r\n",
    ),
    (
        "lines that end in LF",
        "--XX\nContent-Type: image/jpeg\nContent-Disposition: form-data; name=\"image\"; filename=\"a.jpg\"\n\nFILE\n--XX--\n",
    ),
    (
        "blanks after the boundary, no break at the end",
        "\r\n--XX  \r\ncontent-disposition:form-data;name=image\r\n\r\nFILE\r\n--XX-- ",
    ),
];

#[test]
fn what_clients_write_is_read() {
    for (client, body) in CLIENTS {
        let part = Part { content: Bytes::from_static(b"FILE"), encoding: Encoding::Plain };
        assert_eq!(cut_parts(&Bytes::from_static(body.as_bytes())), Ok(vec![part]), "{client}");
    }
}

#[test]
fn a_part_in_base64_is_known_as_such_and_other_encodings_are_refused_by_name() {
    let body = |encoding: &str| {
        let head = "--XX\r\nContent-Disposition: form-data; name=\"image\"\r\nContent-Transfer-Encoding:";
        Bytes::from(format!("{head} {encoding}\r\n\r\nRklMRQ==\r\n--XX--"))
    };
    assert_eq!(cut_parts(&body("Base64")).unwrap()[0].encoding, Encoding::Base64);
    let refused = cut_parts(&body("quoted-printable")).unwrap_err().to_string();
    insta::assert_snapshot!(refused, @"the content-transfer-encoding `quoted-printable` of part 0 is not served; allowed are binary and base64");
}

proptest! {
    #[test]
    fn a_part_is_found_whatever_its_file_is_called(file in "[^\r\n]{0,40}", content in prop::collection::vec(any::<u8>(), 0..60)) {
        prop_assume!(memmem::find(&content, b"--XX").is_none());
        let escaped = file.replace('\\', "\\\\").replace('"', "\\\"");
        for file in [file.as_str(), &escaped, &file.replace('"', "%22")] {
            let mut body = format!("--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{file}\"\r\n\r\n").into_bytes();
            body.extend_from_slice(&content);
            body.extend_from_slice(b"\r\n--XX--\r\n");
            prop_assert_eq!(&cut(&body.into()).unwrap(), &[Bytes::from(content.clone())]);
        }
    }

    #[test]
    fn contents_come_back_as_they_were(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..4)) {
        let slices: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
        prop_assume!(slices.iter().all(|content| memmem::find(content, b"--XX").is_none()));
        prop_assert_eq!(cut(&form(&slices)).unwrap(), contents);
    }

    #[test]
    fn any_bytes_are_read_or_refused(tail in prop::collection::vec(any::<u8>(), 0..100), at in 0usize..200) {
        let whole = form(&[b"one", b"two"]);
        let _ = cut(&whole.slice(..at.min(whole.len())));
        let _ = cut(&[b"--XX".to_vec(), tail].concat().into());
    }
}
