"""Coverage-guided fuzzing of one parser, by hand: ``python -m tests.fuzz.atheris_run TARGET -max_total_time=60``.

Needs ``pip install atheris``. Finds go to the working directory; put what was mended into ``tests/fuzz/corpus/TARGET``.
"""

import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["pipeline"]):
    from tests.fuzz.targets import CORPUS, TARGETS


def main() -> None:
    """Fuzz until told to stop; the committed corpus is read, never written."""
    name, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as grown:
        atheris.Setup([sys.argv[0], grown, str(CORPUS / name), *options], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
