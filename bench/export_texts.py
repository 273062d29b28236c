"""Write a data set's prompts as one file, separated by NUL characters, for the Rust benches.

python bench/export_texts.py mmlu_pro prompts.txt
UNIROUTE_TEXTS=$PWD/prompts.txt cargo bench --bench lexical
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from uniroute_fast import datasets


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set")
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("UNIROUTE_DATA", "../shared/data"))
    )
    arguments = parser.parse_args()
    texts = datasets.load(arguments.data / arguments.set).texts
    arguments.out.write_text("\0".join(text.replace("\0", " ") for text in texts), "utf-8")


if __name__ == "__main__":
    main()
