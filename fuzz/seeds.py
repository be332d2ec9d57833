"""Writes the corpus that fuzzing begins with: a few small, sound inputs of every kind, in fuzz/corpus.

Needs Pillow, onnx and tokenizers: pip install pillow onnx tokenizers
"""

import base64
import io
from pathlib import Path

import numpy
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

CORPUS = Path(__file__).parent / "corpus"


def write(target: str, name: str, content: bytes) -> None:
    """Writes one input of a target."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def drawing(mode: str, size: tuple[int, int] = (21, 13)) -> Image.Image:
    """A picture with detail everywhere and no symmetry."""
    width, height = size
    y, x = numpy.mgrid[:height, :width]
    planes = [x * 7 + y * 13, x * y % 251, x * 3 + 255 - y * 5 % 255, 255 - x * 9]
    rgba = Image.fromarray(numpy.stack(planes, -1).astype(numpy.uint8), "RGBA")
    return rgba.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else rgba.convert(mode)


def encoded(mode: str, form: str, **options) -> bytes:
    """A picture in a file format."""
    buffer = io.BytesIO()
    drawing(mode).save(buffer, form, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    """An EXIF block that holds an orientation only."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def pictures() -> None:
    """Every format, colour type and coding that Pillow writes and Lepton reads."""
    frames = [drawing("RGB"), drawing("RGB", (21, 13)).rotate(180)]
    for name, content in {
        "baseline.jpg": encoded("RGB", "JPEG", quality=70),
        "full-chroma.jpg": encoded("RGB", "JPEG", subsampling=0),
        "halved-chroma.jpg": encoded("RGB", "JPEG", subsampling=1, restart_marker_blocks=1),
        "progressive.jpg": encoded("RGB", "JPEG", progressive=True),
        "grey.jpg": encoded("L", "JPEG"),
        "cmyk.jpg": encoded("CMYK", "JPEG"),
        "oriented.jpg": encoded("RGB", "JPEG", exif=exif(6)),
        "rgb.png": encoded("RGB", "PNG"),
        "rgba.png": encoded("RGBA", "PNG"),
        "palette.png": encoded("P", "PNG", transparency=0),
        "bilevel.png": encoded("1", "PNG"),
        "oriented.png": encoded("RGB", "PNG", exif=exif(3)),
        "lossy.webp": encoded("RGB", "WEBP", quality=40),
        "lossless.webp": encoded("RGB", "WEBP", lossless=True),
        "alpha.webp": encoded("RGBA", "WEBP", quality=40, exif=exif(8)),
        "animated.webp": encoded("RGB", "WEBP", save_all=True, append_images=frames),
        "palette.gif": encoded("P", "GIF"),
        "animated.gif": encoded("P", "GIF", save_all=True, append_images=frames),
        "rgb.bmp": encoded("RGB", "BMP"),
        "palette.bmp": encoded("P", "BMP"),
        "plain.tif": encoded("RGB", "TIFF"),
        "lzw.tif": encoded("RGB", "TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded("L", "TIFF", compression="tiff_adobe_deflate"),
        "bilevel.tif": encoded("1", "TIFF"),
    }.items():
        write("image", name, content)


def bodies() -> None:
    """JSON and forms."""
    picture = encoded("RGB", "JPEG", quality=30)
    text = base64.b64encode(picture).decode()
    for name, body in {
        "text": '{"text": "what a day"}',
        "texts": '{"texts": ["good", "\\u00e4\\ud83d\\ude00 bad", "好"], "other": [1.5e3, null, {"a": true}]}',
        "image": f'{{"image": "{text}"}}',
        "images": f'{{"images": ["data:image/jpeg;base64,{text}", "{text}"]}}',
        "nested": '{"a": [[[[{"text": {}}]]]], "text": "x"}',
        "mark": "\ufeff{\"text\": \"x\"}",
    }.items():
        write("json", name, body.encode())
    part = 'content-disposition: form-data; name="image"; filename="a \\"b\\".jpg"\r\ncontent-type: image/jpeg\r\n\r\n'
    form = f"X\n--X\r\n{part}".encode() + picture + f"\r\n--X\r\n{part}".encode() + picture + b"\r\n--X--\r\n"
    write("multipart", "two", form)
    write("multipart", "quoted", b'"a b"\npreamble\r\n--a b\r\n\r\n\r\n--a b--\r\nepilogue')
    write("multipart", "folded", b"X\n--X\r\nContent-Disposition: form-data;\r\n name=image\r\n\r\nx\r\n--X--")


def heads() -> None:
    """Requests as bytes on a socket."""
    lines = b"host: fuzz\r\nconnection: close\r\n"
    json = b'{"text": "fine"}'
    for name, request in {
        "get": b"GET /v1/models HTTP/1.1\r\n" + lines + b"\r\n",
        "old": b"GET / HTTP/1.0\r\n\r\n",
        "post": b"POST /v1/text/sentiment?top_k=1 HTTP/1.1\r\n" + lines
        + b"content-type: application/json\r\nx-deadline-ms: 500\r\nx-class: batch\r\ncontent-length: 16\r\n\r\n" + json,
        "chunked": b"POST /v1/text/sentiment HTTP/1.1\r\n" + lines
        + b"content-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
        "continue": b"POST /v1/vision/classify HTTP/1.1\r\n" + lines
        + b"expect: 100-continue\r\ncontent-type: image/jpeg\r\ncontent-length: 0\r\n\r\n",
        "two": b"GET /healthz HTTP/1.1\r\nhost: fuzz\r\n\r\nGET /healthz HTTP/1.1\r\n" + lines + b"\r\n",
    }.items():
        write("head", name, request)


def networks() -> None:
    """Small networks: a convolution, a recurrence, a dense layer with names and shapes that contradict nothing."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2])
    rng = numpy.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((4, 1, 3, 3)).astype(numpy.float32), "w"),
        numpy_helper.from_array(rng.standard_normal((4, 2)).astype(numpy.float32), "d"),
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"], axis=1),
        helper.make_node("MatMul", ["f", "d"], ["scores"]),
    ]
    graph = helper.make_graph(nodes, "convolution", [image], [scores], weights)
    write("onnx", "convolution", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString())
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "T"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [
        numpy_helper.from_array(rng.standard_normal((8, 4)).astype(numpy.float32), "table"),
        numpy_helper.from_array(rng.standard_normal((1, 9, 4)).astype(numpy.float32), "wx"),
        numpy_helper.from_array(rng.standard_normal((1, 9, 3)).astype(numpy.float32), "wh"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Transpose", ["e"], ["t"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["t", "wx", "wh"], ["y"], hidden_size=3),
    ]
    graph = helper.make_graph(nodes, "recurrence", [ids], [output], weights)
    write("onnx", "recurrence", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)]).SerializeToString())
    loop = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["v", "v"], ["v2"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("c2", TensorProto.BOOL, []), helper.make_tensor_value_info("v2", TensorProto.FLOAT, [1])],
    )
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["z"], body=loop)]
    graph = helper.make_graph(
        nodes, "loop", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(numpy.array(3, numpy.int64), "n")],
    )
    write("onnx", "loop", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString())


def tokenizers() -> None:
    """A tokenizer of each model, with a text."""
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "what": 3, "a": 4, "day": 5, "##s": 6}
    letters = {letter: at for at, letter in enumerate(["<unk>", *"abcdehtwy ", "ab"])}
    kinds = {
        "wordpiece": Tokenizer(models.WordPiece(words, unk_token="[UNK]")),
        "bpe": Tokenizer(models.BPE(letters, [("a", "b")], unk_token="<unk>")),
        "unigram": Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("what", -2.5), ("▁", -1.5)], 0)),
        "wordlevel": Tokenizer(models.WordLevel(words, unk_token="[UNK]")),
    }
    kinds["wordpiece"].normalizer = normalizers.BertNormalizer()
    kinds["wordpiece"].pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    kinds["wordpiece"].post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    kinds["bpe"].pre_tokenizer = pre_tokenizers.ByteLevel()
    kinds["unigram"].pre_tokenizer = pre_tokenizers.Metaspace()
    kinds["wordlevel"].pre_tokenizer = pre_tokenizers.Split(r"\w+|[^\w\s]+", "isolated")
    for name, tokenizer in kinds.items():
        write("tokenizer", name, tokenizer.to_str().encode() + "\n---\nwhat a day, ä 好\u200d".encode())


if __name__ == "__main__":
    pictures()
    bodies()
    heads()
    networks()
    tokenizers()
