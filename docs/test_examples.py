"""The examples run as printed, with threads and with processes; with actors they run in the tests of Ray."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent / "examples"
EXPECTED = {
    "sliding_window.py": "sensor 0: 34.8\nsensor 1: 57.6\nsensor 2: 62.2\n",
    "join.py": "Ada: engine\nAda: loom\nGrace: compiler\n",
    "embedding.py": "processes and their queue -> a queue between processes\n"
    "which cat sat on the mat -> a cat on the mat\nwill it rain at sea -> rain over the sea\n",
    "word_count.py": "      4 the\n      2 cat\n      1 and\n      1 dog\n      1 mat\n      1 saw\n      1 so\n",
}


@pytest.mark.parametrize("where", ["threads", "processes"])
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_prints_what_it_should(name: str, where: str, tmp_path: Path) -> None:
    """Word count reads a file of its own."""
    text = tmp_path / "text"
    text.write_text("The cat saw the mat,\nand so -- the cat! The dog.\n")
    words = [str(text), where] if name == "word_count.py" else [where]

    ended = subprocess.run(
        [sys.executable, EXAMPLES / name, *words], capture_output=True, text=True, timeout=120, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert sorted(ended.stdout.splitlines()) == sorted(EXPECTED[name].splitlines())
