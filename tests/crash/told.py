"""Tells the story with the product's own threads, perhaps with a fault built in: a program of its own.

python -m tests.crash.told FOLDER [MUTANT]
"""

import os
import sys
from pathlib import Path

import anyio

from tests.crash import story
from tests.crash.mutants import MUTANTS


def main(folder: Path, mutant: str | None = None) -> None:
    """What is promised goes to FOLDER.words."""
    if mutant:
        MUTANTS[mutant]()
    words = os.open(f"{folder}.words", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    anyio.run(story.tell, folder, story.saying(words))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
