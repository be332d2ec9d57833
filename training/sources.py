"""Compare the data at hand with `sources.toml`: where each file comes from, how large it is, and its SHA-256.

`python training/sources.py` looks in `../shared` beside the repository; `--data` names another folder of data, beside
which `models/` is looked for. The code is 1 where a file is missing or another. It needs no package.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple, Sequence

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT = REPOSITORY.parent / "shared" / "data"


class Source(NamedTuple):
    """A file that recipes read, by its path from the folder that `data` and `models` lie in."""

    path: str
    sha256: str
    bytes: int
    recipes: Sequence[str]
    source: str
    what: str

    def file(self, data: Path) -> Path:
        folder, rest = self.path.split("/", 1)
        return data / rest if folder == "data" else data.parent / folder / rest

    def fault(self, data: Path, *, whole: bool) -> str | None:
        """What is wrong with the file at hand; its bytes are read only if `whole`."""
        file = self.file(data)
        if not file.is_file():
            return "is missing"
        if file.stat().st_size != self.bytes:
            return f"has {file.stat().st_size:,} bytes in place of {self.bytes:,}"
        if whole and hashlib.sha256(file.read_bytes()).hexdigest() != self.sha256:
            return "has another SHA-256"
        return None


def sources() -> list[Source]:
    with open(REPOSITORY / "training" / "sources.toml", "rb") as file:
        return [Source(**entry) for entry in tomllib.load(file)["file"]]


def faults(data: Path, wanted: Sequence[Source], *, whole: bool) -> list[str]:
    found = ((source, source.fault(data, whole=whole)) for source in wanted)
    return [f"{source.file(data)} {fault}\n  {source.what}\n  from {source.source or 'a place that is not recorded'}\n"
            f"  {source.bytes:,} bytes, SHA-256 {source.sha256}" for source, fault in found if fault]


def require(data: Path, model: str) -> None:
    """End the program with a list of what the recipe of a model lacks, if it lacks anything."""
    lacking = faults(data, [source for source in sources() if model in source.recipes], whole=False)
    if lacking:
        sys.exit("\n".join([f"the recipe of models/{model} cannot run: {len(lacking)} of its files cannot be used",
                            *lacking, "--data names the folder of the data; training/README.md has more"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT, help="folder of the data sets (default: ../shared/data)")
    listed = sources()
    found = faults(parser.parse_args().data, listed, whole=True)
    print("\n".join(found) if found else f"all {len(listed)} files are as listed")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
