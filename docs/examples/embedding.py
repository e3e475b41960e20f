"""
Which of some texts is nearest to each question, by a model that all tasks share as a service.

``python embedding.py [threads|processes|actors]`` needs numpy. The model here hashes words into a vector; what matters
is how it is called, and that vectors travel as arrays.
"""

import sys
import zlib
from typing import Any

import numpy
from environments import environment

from sage_qd.runtime import BaseFunction, Environment, Result

TEXTS = ["a queue between processes", "a cat on the mat", "rain over the sea"]
QUESTIONS = ["which cat sat on the mat", "processes and their queue", "will it rain at sea"]


class Model:
    """Turns a text into a vector of length one."""

    def embed(self, text: str) -> Any:
        """One place for each word."""
        vector = numpy.zeros(256)
        for word in text.split():
            vector[zlib.crc32(word.encode()) % 256] += 1
        return vector / numpy.linalg.norm(vector)


class Embed(BaseFunction):
    """Asks the service."""

    def execute(self, text: str) -> tuple[str, Any]:
        """The text with its vector."""
        return text, self.ctx.call_service("model", text, method="embed", timeout=30)


class Nearest(BaseFunction):
    """Knows the vectors of the texts."""

    def open(self) -> None:
        """Ask for all of them at once, and wait for the answers then."""
        calls = [self.ctx.call_service_async("model", text, method="embed", timeout=30) for text in TEXTS]
        self.known = numpy.stack([call.result() for call in calls])

    def execute(self, found: tuple[str, Any]) -> tuple[str, str]:
        """The question with the text that is nearest."""
        question, vector = found
        return question, TEXTS[int(numpy.argmax(self.known @ vector))]


def build(env: Environment) -> Result:
    """From questions to ``(question, text)``."""
    env.add_service("model", Model)
    return env.from_collection(QUESTIONS).map(Embed, parallelism=2).map(Nearest, name="nearest").collect()


if __name__ == "__main__":
    env = environment("nearest", sys.argv[1:])
    found = build(env)
    env.execute()
    for question, text in sorted(found.items):
        print(f"{question} -> {text}")
