"""Write `families.zlib`: small tokenizers of every family, texts of every Unicode category and script, and what the
reference library makes of them.

    python3 -m venv .venv && .venv/bin/pip install tokenizers==0.23.3
    .venv/bin/python crates/media/golden/families.py

Each family has the normaliser, the split and the special tokens of the networks that it is named after, and a vocabulary
that is learnt from the texts. `crates/media/src/text/golden.rs` holds Lepton to the ids; it reads their hashes.
"""

from __future__ import annotations

import json
import random
import sys
import unicodedata
import zlib
from pathlib import Path
from typing import Any, Callable

from tokenizers import (AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors,
                        trainers)

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "training"))
from charsmap import charsmap  # noqa: E402

MOST_TOKENS = 8192  # no text is cut
VOCABULARY = 420
SAMPLES = 2         # characters of each script and category


# --- texts ----------------------------------------------------------------------------


def samples() -> list[str]:
    """Characters of every general category in every script, as the first words of their names tell scripts apart."""
    found: dict[tuple[str, str], list[str]] = {}
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue  # no UTF-8 has them
        char, name = chr(code), unicodedata.name(chr(code), "")
        category = unicodedata.category(char)
        # Letters and marks by script; of all else a category is enough, for each block of 4096.
        kind = name.split(" ")[0].split("-")[0] if category[0] in "LMN" else str(code // 4096)
        if category in ("Cn", "Co"):
            kind = str(code >> 16)
        if category == "Cc":
            kind = str(code)
        chars = found.setdefault((category, kind), [])
        if len(chars) < SAMPLES:
            chars.append(char)
    return [char for _, chars in sorted(found.items()) for char in chars]


PROSE = [
    "The quick brown fox jumps over the lazy dog, doesn't it? I'd say it's well-known: they've seen 1,234.56 foxes!",
    "Good film. GOOD FILM!! goooood film... #film @film film@example.com https://example.com/film?a=b&c=d",
    "I'M SURE WE'LL SAY IT'S WHAT THEY'RE SAYING; DON'T YOU'VE HE'D",
    "Café, naïve, façade, Zürich, Straße, STRASSE, ẞ, Ελλάς, ΣΊΣΥΦΟΣ, ǅ, ŉ, İstanbul, ıI, ﬁne ﬂow ﬃ, K Å Ω, ſo 'ſ 's 'S",
    "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. Ёлка, ёж, й й",
    "很好的电影，我非常喜欢！房间又小又脏，服务员态度极差。龍門客棧：這本書寫得真好。１２３ＡＢＣ　全角",
    "とても良い映画です。カタカナ ｶﾀｶﾅ がぎぐ パピプ ゟ ヿ 々〆〇 １０月３日（土）", "아주 좋은 영화입니다. 한국어 한국어 각",
    "فيلم رائع جداً، ١٢٣ ﷺ ﻻ لا می‌خواهم خوب", "סרט טוב מאוד, שָׁלוֹם", "बहुत अच्छी फ़िल्म है। क्‍ष क्ष क़ क़ नमस्ते १२३",
    "หนังดีมาก ภาษาไทย ๑๒๓ ำ กำ", "தமிழ் ಕನ್ನಡ తెలుగు മലയാളം සිංහල ગુજરાતી ਪੰਜਾਬੀ বাংলা ଓଡ଼ିଆ", "မြန်မာ ខ្មែរ ລາວ བོད་ ქართული ᲥართᲣ հայերեն և ﬓ",
    "አማርኛ ᏣᎳᎩ ꭰꮳ ᐃᓄᒃ ᚠᚢ ᠮᠣᠩᠭᠣᠯ 𐐀𐐨 𝐀𝟎𝔸 𒀀 𓀀 𝄞", "👍👍🏽 👩‍👩‍👧‍👦 ❤️ ❤ ☺︎ 🇩🇪🇫🇷 1️⃣ ™ © ® ⭐★☆ 😀😍🤮 ⌚ ♀️",
    "go\u200dod film gre\u200dat\u200c \u200d \u200c good\u200dbad\u200c", "a\u00adb\u2060c\ufeffd\u200be\u180ef\u034fg \ufeff",
    "a\tb\nc\r\nd\ve\ff\x85g\u2028h\u2029i\u00a0j\u3000k\u2003l\u205fm\u1680n", "   leading", "trailing   ", "\n\nlines\n\n  more\n \n\tlines \n",
    "a  b   c    d     e      f       g", " \t mixed \n  spaces \r\n\r\n here\t\t", "x\n", "\nx", " x", "x ", "\u3000x\u3000", "\u00a0x\u00a0",
    "0 1 12 123 1234 12345 123456789 3.14 -1 +2 1e9 ½ ² ³ ① ⅷ Ⅷ ㈱ ٣ ३ 三 ൰ 𝟘", "0x1F DEADbeef 00ff 2024-01-31T23:59:59Z 10:30",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ¡¢£¤¥¦§¨©ª«¬®¯°±´µ¶·¸º»¿×÷", "‐‑‒–—―‖‗‘’‚‛“”„‟†‡•…‰′″‹›※‼⁇⁈⁉⁎⁏",
    "«quoted» “curly” ‘single’ „low“ ‚x‘ ``tex'' 'tis 'em n't ’s ’T", "snake_case CamelCase kebab-case a_b __init__ x‿y ﹏z＿w",
    "<br /><b>bold</b> &amp; &lt;tag&gt; &#39;x&#39; [CLS] [SEP] [PAD] [UNK] [MASK] <s> </s> <unk> <pad> <mask> <|endoftext|>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbb" + "z" * 120, "e\u0301e\u0301 é a\u0328\u0301 ą́ \u0301x \u0301", "ﬀ ﬁ ﬂ ﬃ ﬄ ﬅ ﬆ ﬓ ﷲ ㎏ ㍿ ℃ № ℡ ⑴ ⒈ ⓐ 🅰 🈁",
    "\ufdd0 \ufffe \uffff \U0001fffe x\ufffdy", "\x00\x01\x1f\x7f\x80\x9f a\x00b", "q\u0300\u0301\u0302\u0303\u0304 Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢",
    "end.\nNext line?\n\nPara\u2029Sep\u2028Line", "ΑΒΓ αβγ άέή ΐ ᾳ ῼ ᾼ ϐ ϑ ς σ Σ", "ĳ Ĳ ǆ Ǆ Ǳ ŀ ľ đ Đ ħ ł ø Ø æ Æ œ þ Þ ð",
]


def texts() -> list[str]:
    """Prose, and every sample among letters, alone, between spaces and doubled, drawn in no order."""
    chance = random.Random(7)
    every = samples()
    drawn = [f"{char}" for char in every]
    chance.shuffle(drawn)
    made = []
    forms: list[Callable[[str], str]] = [lambda c: c, lambda c: f" {c}", lambda c: f"a{c}b", lambda c: f"{c}{c} ",
                                         lambda c: f"good{c}film", lambda c: f"1{c}2", lambda c: f"{c}\n", lambda c: f"'{c}"]
    for begin in range(0, len(drawn), 12):
        made.append("".join(chance.choice(forms)(char) for char in drawn[begin:begin + 12]))
    return [text for text in PROSE + made if text.strip()]


# --- families -------------------------------------------------------------------------


def special(names: list[str]) -> list[AddedToken]:
    return [AddedToken(name, special=True, normalized=False) for name in names]


LEARNS = ("bert-uncased", "distilbert", "mpnet")  # of those that split words into pieces; the others have the first's
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def template(single: str) -> Callable[[Tokenizer], Any]:
    def build(tokenizer: Tokenizer) -> Any:
        named = [word.split(":")[0] for word in single.split() if not word.startswith("$")]
        return processors.TemplateProcessing(single=single, special_tokens=[
            (name, tokenizer.token_to_id(name)) for name in dict.fromkeys(named)])
    return build


def pair(kind: Callable, separator: str, begin: str, **options) -> Callable[[Tokenizer], Any]:
    return lambda t: kind((separator, t.token_to_id(separator)), (begin, t.token_to_id(begin)), **options)


def wordpiece(tokens: list[str], **options) -> tuple[Any, Any]:
    return (models.WordPiece(unk_token="[UNK]", **options),
            trainers.WordPieceTrainer(vocab_size=1600, special_tokens=special(tokens), show_progress=False))


def byte_level(tokens: list[str], **options) -> tuple[Any, Any]:
    return (models.BPE(**options), trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special(tokens), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False, end_of_word_suffix=options.get("end_of_word_suffix", "")))


def byte_fallback(tokens: list[str]) -> tuple[Any, Any]:
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    return (models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"),
            trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special(tokens) + bytes_, limit_alphabet=120,
                                show_progress=False))


def unigram(tokens: list[str], unknown: str = "<unk>") -> tuple[Any, Any]:
    return (models.Unigram(), trainers.UnigramTrainer(vocab_size=640, special_tokens=special(tokens),
                                                      unk_token=unknown, show_progress=False))


def sentencepiece(every: list[str]) -> normalizers.Normalizer:
    """The rules of SentencePiece's `nmt_nfkc` for the characters of the texts."""
    rules = {}
    for char in sorted(set("".join(every))):
        category = unicodedata.category(char)
        text = unicodedata.normalize("NFKC", char)
        if char in "\t\n\r\u200b\u200e\u200f\u2028\u2029\ufeff\u3000" or category == "Zs":
            text = " "
        if text != char and char != "\0":
            rules[char] = text
    return normalizers.Precompiled(charsmap(rules))


GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(pattern: str, behavior: str = "isolated", invert: bool = False) -> Any:
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def families(every: list[str]) -> dict[str, tuple]:
    """Each family: model with trainer, normaliser, split, special tokens around a text."""
    n, p = normalizers, pre_tokenizers
    spm, metaspace = sentencepiece(every), p.Metaspace("\u2581", prepend_scheme="always")
    spaces = n.Replace(Regex(" {2,}"), " ")
    cls_sep = template("[CLS]:0 $A:0 [SEP]:0")
    bert = lambda **options: n.BertNormalizer(**options)  # noqa: E731
    words = lambda pattern: split(pattern)  # noqa: E731
    quotes = [n.Replace("``", '"'), n.Replace("''", '"')]
    llama = n.Sequence([n.Prepend("\u2581"), n.Replace(" ", "\u2581")])
    bytes_after = p.ByteLevel(add_prefix_space=False, use_regex=False)
    s_s = template("<s> $A </s>")
    return {
        "bert-uncased": (wordpiece(BERT), bert(lowercase=True), p.BertPreTokenizer(), cls_sep),
        "bert-cased": (wordpiece(BERT), bert(lowercase=False), p.BertPreTokenizer(), cls_sep),
        "bert-chinese": (wordpiece(BERT), bert(lowercase=False, strip_accents=True), p.BertPreTokenizer(), cls_sep),
        "bert-japanese-unsplit": (wordpiece(BERT), bert(lowercase=False, handle_chinese_chars=False, clean_text=False),
                                  p.BertPreTokenizer(), cls_sep),
        "distilbert": (wordpiece(BERT, max_input_chars_per_word=20), bert(lowercase=True), p.BertPreTokenizer(),
                       pair(processors.BertProcessing, "[SEP]", "[CLS]")),
        "electra-keeps-accents": (wordpiece(BERT), bert(lowercase=True, strip_accents=False), p.BertPreTokenizer(), cls_sep),
        "mpnet": (wordpiece(["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]), bert(lowercase=True), p.BertPreTokenizer(),
                  pair(processors.RobertaProcessing, "</s>", "<s>")),
        "roberta": (byte_level(ROBERTA), None, p.ByteLevel(add_prefix_space=False),
                    pair(processors.RobertaProcessing, "</s>", "<s>", add_prefix_space=False)),
        "longformer-prefix": (byte_level(ROBERTA), None, p.ByteLevel(add_prefix_space=True),
                              pair(processors.RobertaProcessing, "</s>", "<s>")),
        "bart": (byte_level(ROBERTA), None, p.ByteLevel(add_prefix_space=False), s_s),
        "deberta": (byte_level(BERT), None, p.ByteLevel(add_prefix_space=False), cls_sep),
        "gpt2": (byte_level(["<|endoftext|>"]), None, p.ByteLevel(add_prefix_space=False),
                 lambda _: processors.ByteLevel(trim_offsets=False)),
        "whisper": (byte_level(["<|startoftranscript|>", "<|notimestamps|>", "<|endoftext|>"]), None,
                    p.ByteLevel(add_prefix_space=False), template("<|startoftranscript|> <|notimestamps|> $A <|endoftext|>")),
        "bloom": (byte_level(["<s>", "</s>"]), None,
                  p.Sequence([split(r" ?[^(\s|[.,!?…。，、।۔،])]+"), bytes_after]), None),
        "falcon": (byte_level(["<|endoftext|>"]), None,
                   p.Sequence([p.Punctuation("contiguous"), p.ByteLevel(add_prefix_space=False), p.Digits(False),
                               split(r"[0-9][0-9][0-9]")]), None),
        "llama3": (byte_level(["<|begin_of_text|>"], ignore_merges=True), None, p.Sequence([split(GPT4), bytes_after]),
                   template("<|begin_of_text|> $A")),
        "qwen2": (byte_level(["<|endoftext|>"]), n.NFC(), p.Sequence([split(QWEN2), bytes_after]), None),
        "gpt-oss": (byte_level(["<|endoftext|>"]), None, p.Sequence([split(O200K), bytes_after]), None),
        "deepseek": (byte_level(["<\uff5cbegin\uff5c>"]), None, p.Sequence([
            split(r"[\r\n]"), split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ]+"),
            split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"), split("[一-龥ࠀ-一가-\ud7ff]+"), p.Digits(True), bytes_after]), None),
        "clip": (byte_level(["<|startoftext|>", "<|endoftext|>"], end_of_word_suffix="</w>", unk_token="<|endoftext|>"),
                 n.Sequence([n.NFC(), n.Replace(Regex(r"\s+"), " "), n.Lowercase()]),
                 p.Sequence([split(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", "removed", True),
                             p.ByteLevel(add_prefix_space=False)]),
                 pair(processors.RobertaProcessing, "<|endoftext|>", "<|startoftext|>", add_prefix_space=False)),
        "openai-gpt": ((models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), trainers.BpeTrainer(
            vocab_size=1600, special_tokens=special(["<unk>"]), end_of_word_suffix="</w>", show_progress=False)),
            bert(lowercase=True), p.BertPreTokenizer(), None),
        "xlm-roberta": (unigram(ROBERTA), spm, p.Sequence([p.WhitespaceSplit(), metaspace]), s_s),
        "camembert": (unigram(ROBERTA), n.Sequence([spm, spaces]), metaspace, s_s),
        "mbart": (unigram(ROBERTA + ["en_XX"]), spm, p.Sequence([p.WhitespaceSplit(), metaspace]), template("$A </s> en_XX")),
        "albert": (unigram(["<pad>", "<unk>", "[CLS]", "[SEP]"]),
                   n.Sequence([*quotes, n.NFKD(), n.StripAccents(), n.Lowercase(), spm, spaces]), metaspace, cls_sep),
        "xlnet": (unigram(["<unk>", "<pad>", "<sep>", "<cls>"]), n.Sequence([*quotes, n.NFKD(), n.StripAccents(), spm, spaces]),
                  metaspace, template("$A <sep> <cls>:2")),
        "t5": (unigram(["<pad>", "</s>", "<unk>"]), spm, p.Sequence([p.WhitespaceSplit(), metaspace]), template("$A </s>")),
        "deberta-v3": (unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]"], "[UNK]"), n.Sequence([n.Strip(), spm, spaces]),
                       metaspace, cls_sep),
        "pegasus": (unigram(["<pad>", "</s>", "<unk>"]), n.Sequence([spm, n.Strip(False, True), spaces]), metaspace,
                    template("$A </s>")),
        "llama": (byte_fallback(["<unk>", "<s>", "</s>"]), llama, None, template("<s> $A")),
        "mistral": (byte_fallback(["<unk>", "<s>", "</s>"]), None, p.Metaspace("\u2581", prepend_scheme="first", split=False),
                    template("<s> $A")),
        "gemma": (byte_fallback(["<pad>", "<eos>", "<bos>", "<unk>"]), n.Replace(" ", "\u2581"),
                  p.Split(" ", "merged_with_previous"), template("<bos> $A")),
        "whitespace": (wordpiece(BERT), n.Sequence([n.NFKC(), n.Lowercase()]), p.Whitespace(), cls_sep),
        "whitespace-split": (wordpiece(BERT), n.Sequence([n.NFD(), n.StripAccents()]), p.WhitespaceSplit(), cls_sep),
        "scripts": (wordpiece(BERT), n.NFKC(), p.Sequence([p.UnicodeScripts(), p.Whitespace()]), cls_sep),
        "punctuation": (wordpiece(BERT), n.Nmt(), p.Sequence([p.Punctuation(), p.Digits(True), p.CharDelimiterSplit(" ")]), cls_sep),
        "byte-normalizer": (byte_level(["<pad>"]), n.ByteLevel(), None, None),
        # Patterns whose meaning differs between the engines of regular expressions.
        "regex-words": (wordpiece(BERT), None, words(r"\w+|[^\w\s]"), cls_sep),
        "regex-not-words": (wordpiece(BERT), None, split(r"\W", "removed"), cls_sep),
        "regex-borders": (wordpiece(BERT), None, words(r"\b\w|\B\S|\w\b"), cls_sep),
        "regex-punct": (wordpiece(BERT), None, words(r"[[:punct:]]"), cls_sep),
        "regex-punct-property": (wordpiece(BERT), None, words(r"\p{Punct}|\p{^P}\p{P}"), cls_sep),
        "regex-alpha": (wordpiece(BERT), None, words(r"[[:alpha:]]+|[[:digit:]]{2}"), cls_sep),
        "regex-alnum": (wordpiece(BERT), None, words(r"[[:alnum:]]+|[[:^space:]]"), cls_sep),
        "regex-upper-lower": (wordpiece(BERT), None, words(r"[[:upper:]][[:lower:]]*|[[:cntrl:]]|[[:xdigit:]]{3}"), cls_sep),
        "regex-graph-print": (wordpiece(BERT), None, words(r"[[:graph:]]{2}|[[:print:]]|[[:word:]]|[[:blank:]]"), cls_sep),
        "regex-lines": (wordpiece(BERT), None, words(r"^.|.$|\n"), cls_sep),
        "regex-text-ends": (wordpiece(BERT), None, words(r"\A.|.\z|.\Z"), cls_sep),
        "regex-case": (wordpiece(BERT), None, words(r"(?i)ss|k|å|'s|ﬁ|σ|i"), cls_sep),
        "regex-hex": (wordpiece(BERT), None, words(r"\h+|\H"), cls_sep),
        "regex-line-breaks": (wordpiece(BERT), None, words(r"\R|\X"), cls_sep),
        "regex-repeats": (wordpiece(BERT), None, words(r"\d{1,2}+|a{2}?|[a-c&&[^b]]+|o++d"), cls_sep),
        "regex-around": (wordpiece(BERT), None, words(r"(?<=\w)[^\w\s]|\S(?!\S)|(\w)\1"), cls_sep),
        "regex-spaces": (wordpiece(BERT), None, words(r"\s+|\S"), cls_sep),
        "regex-replace": (wordpiece(BERT), n.Sequence([n.Replace(Regex(r"\B@\w+"), ""), n.Replace(Regex(r"([a-z])\1+(?=\1)"), ""),
                                                       n.Replace(Regex(r"^\s+|\s+$"), " ")]), p.BertPreTokenizer(), cls_sep),
    }


# --- what is written ------------------------------------------------------------------


def fnv(ids: list[int]) -> int:
    """FNV-1a over the ids, in 32 bits."""
    found = 0x811C9DC5
    for value in ids:
        found = (found ^ value) * 0x01000193 & 0xFFFFFFFF
    return found


def shipped() -> dict[str, Tokenizer]:
    path = HERE.parents[2] / "models" / "sentiment" / "tokenizer.json"
    return {"models/sentiment": Tokenizer.from_file(str(path))}


def main() -> None:
    every = texts()
    rows = []
    vocabularies: dict[str, int] = {}
    made: dict[str, Tokenizer] = {}
    for name, ((model, trainer), normalizer, pre_tokenizer, around) in families(every).items():
        tokenizer = Tokenizer(model)
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        if pre_tokenizer is not None:
            tokenizer.pre_tokenizer = pre_tokenizer
        if isinstance(model, models.WordPiece) and name not in LEARNS:
            tokenizer.model = made["bert-uncased"].model
            tokenizer.add_special_tokens(special(BERT))
        else:
            # Unigram keeps every character that it is shown.
            tokenizer.train_from_iterator(PROSE[:8] if isinstance(model, models.Unigram) else every, trainer)
        if around is not None:
            tokenizer.post_processor = around(tokenizer)
        made[name] = tokenizer
    for name, tokenizer in {**made, **shipped()}.items():
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.encode_special_tokens = True  # as Lepton does: callers cannot write special tokens
        file = None if name.startswith("models/") else json.loads(tokenizer.to_str())
        if file:  # which many have in common
            vocabulary = json.dumps(file["model"], ensure_ascii=False)
            file["model"] = vocabularies.setdefault(vocabulary, len(vocabularies))
        hashes = []
        for text in every:
            inside = tokenizer.encode(text, add_special_tokens=False).ids
            ids = tokenizer.encode(text).ids
            assert len(ids) <= MOST_TOKENS
            hashes.append(fnv(ids) if inside else 0)  # nothing to read is refused
        first = tokenizer.encode(every[0]).ids
        rows.append({"name": name, "tokenizer": file, "hashes": hashes, "first": first})
    golden = {"reference": "tokenizers 0.23.3, Oniguruma 6.9.10", "texts": every,
              "models": [json.loads(vocabulary) for vocabulary in vocabularies], "families": rows}
    packed = zlib.compress(json.dumps(golden, ensure_ascii=False, separators=(",", ":")).encode(), 9)
    (HERE / "families.zlib").write_bytes(packed)
    print(f"{len(rows)} tokenizers, {len(every)} texts, {len(packed)} bytes")


if __name__ == "__main__":
    main()
