"""The codemod on programs that nobody wrote: whatever it is given, it keeps these rules."""

import ast
import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sage_compat.moving_off.fixing import MARK, fixed
from sage_compat.moving_off.judging import Granted
from sage_compat.moving_off.sources import Decoded

IMPORTS = {
    "from sage.utils.queue_adapter import create_queue": "create_queue",
    "from sage.utils.queue_adapter import create_queue as make, get_queue_backends": "make",
    "import sage.utils.queue_adapter": "sage.utils.queue_adapter.create_queue",
    "import sage.utils.queue_adapter as adapter": "adapter.create_queue",
    "from sage.utils import queue_adapter": "queue_adapter.create_queue",
}
KINDS = [
    '"python"',
    '"sage"',
    '"ray"',
    'backend="auto"',
    "backend=None",
    "kind",
    "queue_type='python_queue'",
    "**options",
]
NAMES = ["", ', name="a"', ', name="b"', ', name=f"{prefix}_in"', ", name=prefix", ", name=make_name()"]
SIZES = ["", ", maxsize=0", ", maxsize=64", ", maxsize=1 << 16", ", maxsize=size"]
LINES = [
    "q{n} = {call}",
    "self.q{n} = {call}",
    "with {call} as q{n}: use(q{n})",
    "use({call}, [1, 2])  # why not",
    "if {call}.empty(): pass",
    "q{n} = [{call} for _ in range(3)]",
    "q{n}: object = {call}; other = 1",
    "q{n} = (\n    {call}\n)",
    "def work{n}(q={call}):\n    return q.get_stats()",
    "@use({call})\nclass Work{n}:\n    x = 1",
    "try:\n    q{n} = {call}\n    q{n}.put(1)\nfinally:\n    q{n}.close()",
]
OTHERS = [
    "print('größe')",
    "x = '''\n  # sage-compat: SQC001 stays: a text\n'''",
    "",
    "# a comment",
    "q1.get_stats()",
    "del q1",
]


@st.composite
def programs(draw: st.DrawFn) -> tuple[str, int]:
    """A program, and how many old calls it makes."""
    statement = draw(st.sampled_from(sorted(IMPORTS)))
    calls = 0
    pieces = [statement]
    for number in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            pieces.append(draw(st.sampled_from(OTHERS)))
        arguments = "".join(draw(st.sampled_from(some)) for some in (KINDS, NAMES, SIZES))
        call = f"{IMPORTS[statement]}({arguments})"
        line = draw(st.sampled_from(LINES)).format(n=number, call=call)
        if draw(st.booleans()):
            line = f"def outer{number}(self, kind, size, prefix):\n" + re.sub("(?m)^", "    ", line)
        pieces.append(line)
        calls += 1
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return end.join("\n".join(pieces).split("\n")) + end, calls


def fix(text: str) -> tuple[str, int]:
    done = fixed({Path("app.py"): Decoded(text, "utf-8")}, Granted(namespace='"p"', are_held=True))
    return done.texts.get(Path("app.py"), text), done.changes


def calls_of(text: str, *names: str) -> int:
    return sum(
        isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in names
        for node in ast.walk(ast.parse(text))
    )


def without(text: str, *patterns: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not any(each in line for each in patterns))


@settings(max_examples=40, deadline=None)
@given(programs())
def test_every_old_call_is_replaced_or_told_of(program: tuple[str, int]) -> None:
    text, calls = program

    new, changes = fix(text)

    stays = calls_of(new, "create_queue", "make")
    stats = calls_of(text, "get_stats") - calls_of(new, "get_stats")
    assert stays + changes - stats == calls
    told = [line for line in new.splitlines() if line.strip().startswith(MARK) and "a text" not in line]
    assert bool(told) >= bool(stays)


@settings(max_examples=40, deadline=None)
@given(programs())
def test_doing_it_again_changes_nothing(program: tuple[str, int]) -> None:
    once, _ = fix(program[0])

    assert fix(once) == (once, 0)


@settings(max_examples=40, deadline=None)
@given(programs())
def test_everything_else_keeps_its_form(program: tuple[str, int]) -> None:
    text = program[0]
    gone = ("create_queue", "make(", "import ", "get_stats", '{"size"', "Descriptor", MARK, "queue_adapter")

    new, _ = fix(text)

    assert without(new, *gone) == without(text, *gone)
