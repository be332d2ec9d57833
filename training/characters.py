"""Write `characters.tsv`: characters that the sentiment network does not know, and what it reads in their place.

    pip install opencc-python-reimplemented==0.1.7 emoji==2.16.0

Traditional characters become the simplified ones that stand first for them in OpenCC's table of characters (Apache-2.0), one
for one. An emoji becomes its short name in CLDR (Unicode licence v3), as the package `emoji` has it, unless the network
learnt it from ten texts or more; the colours of skin become a space.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import emoji
import opencc

LEARNT = frozenset("\u2764\U0001f643\U0001f602\U0001f64f\U0001f338\U0001f648\U0001f494\u2728\u2640\U0001f495\U0001f64a\U0001f4aa"
                   "\U0001f604\U0001f917\U0001f618\U0001f62d\U0001f44f\U0001f644\U0001f437\U0001f649\U0001f60a\U0001f382\U0001f499"
                   "\u2795\u2600\U0001f436\U0001f447\U0001f614\U0001f31a\U0001f497\U0001f449")
SKIN = [chr(code) for code in range(0x1F3FB, 0x1F400)]


def simplified() -> dict[str, str]:
    """Traditional characters of the basic planes and their simplified forms."""
    path = Path(opencc.__file__).parent / "dictionary" / "TSCharacters.txt"
    pairs = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line)
    found = {traditional: forms.split(" ")[0] for traditional, forms in pairs}
    return {old: new for old, new in found.items() if old != new and len(old) == 1 and ord(new) < 0x10000}


def named() -> dict[str, str]:
    """Emoji of one character and their names, as words."""
    names = {}
    for char in emoji.EMOJI_DATA:
        # Marks that texts have for themselves, such as digits and "(c)", stay what they are.
        if len(char) == 1 and ord(char) >= 0x2300 and char not in LEARNT and unicodedata.category(char) == "So":
            names[char] = " " + emoji.demojize(char, language="en").strip(":").replace("_", " ").lower() + " "
    return names | {char: " " for char in SKIN}


def main() -> None:
    rows = sorted((simplified() | named()).items())
    text = "".join(f"{old}\t{new}\n" for old, new in rows)
    (Path(__file__).parent / "characters.tsv").write_text(text, encoding="utf-8")
    print(f"{len(rows)} characters")


if __name__ == "__main__":
    main()
