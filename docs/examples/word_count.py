"""Count the words of a text: ``python word_count.py FILE [threads|processes|actors]``."""

import sys
from collections.abc import Iterator

from environments import environment

from sage_qd.runtime import Environment, FileSource, Result


def words(line: str) -> Iterator[str]:
    """Words in lower case, without what stands around them."""
    for word in line.lower().split():
        bare = word.strip(".,;:!?()[]\"'*_-")
        if bare:
            yield bare


def build(env: Environment, path: str) -> Result:
    """From the lines of a file to ``(word, count)``."""
    return env.from_source(FileSource(path)).flatmap(words).keyby(str).count(at_end=True, parallelism=2).collect()


if __name__ == "__main__":
    env = environment("words", sys.argv[2:])
    counts = build(env, sys.argv[1])
    env.execute()
    for word, count in sorted(counts.items, key=lambda pair: (-pair[1], pair[0]))[:10]:
        print(f"{count:7,} {word}")
