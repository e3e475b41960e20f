"""The codemod: what it writes, what it leaves and why, and that programs print the same before and after."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sage_compat.moving_off.fixing import fixed
from sage_compat.moving_off.judging import Granted
from sage_compat.moving_off.sources import Decoded

pytestmark = pytest.mark.once
GRANTED = Granted(namespace='"p"')


def fix(granted: Granted = GRANTED, **files: str) -> dict[str, str]:
    """What becomes of files, by name."""
    texts = {Path(f"{name}.py"): Decoded(textwrap.dedent(text).lstrip("\n"), "utf-8") for name, text in files.items()}
    done = fixed(texts, granted).texts
    return {path.stem: done.get(path, each.text) if path in done else each.text for path, each in texts.items()}


def one(text: str, granted: Granted = GRANTED) -> str:
    return fix(granted, app=text)["app"]


def dedented(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


# -- Programs that print the same ------------------------------------------------------------------------------------

WHOLE_ADAPTER = "import threading\nimport sage_compat.queue_adapter as adapter\n"
WHOLE_PACKAGE = "import sage_compat\n"
WRAPPER = "from sage_compat.queue_adapter import QueueWrapper, create_queue\n"
ADAPTER = "from sage_compat.queue_adapter import create_queue\n"
RING = "from sage_compat.sage_queue import SageQueue\n"
CORPUS = {
    "python_queue": (
        ADAPTER
        + """
q = create_queue(backend="python", name="ignored", maxsize=2)
q.put("a")
q.put("b", timeout=1)
print(q.full(), q.qsize(), q.maxsize)
print(q.get(), q.get(timeout=1), q.empty())
""",
        "True 2 2\na b True\n",
    ),
    "two_python_queues_of_one_name": (
        ADAPTER
        + """
one = create_queue("python", name="same")
two = create_queue("python", name="same")
one.put(1)
print(one.qsize(), two.qsize())
""",
        "1 0\n",
    ),
    "old_spelling": (ADAPTER + 'q = create_queue(queue_type="python_queue")\nq.put(3)\nprint(q.get())\n', "3\n"),
    "stats": (
        ADAPTER
        + """
q = create_queue(backend="python", maxsize=1)
q.put(1)
print(q.get_stats())
print(q.get_stats()["size"])
""",
        "{'size': 1, 'empty': False, 'full': True}\n1\n",
    ),
    "sage": (
        ADAPTER
        + """
q = create_queue(backend="sage", name="corpus_sage", maxsize=64 * 1024)
for number in range(3):
    q.put({"n": number})
print([q.get() for _ in range(3)], q.empty())
q.close()
""",
        "[{'n': 0}, {'n': 1}, {'n': 2}] True\n",
    ),
    "automatic": (
        ADAPTER + 'q = create_queue(name="corpus_auto")\nq.put(b"x")\nprint(q.get(block=True, timeout=5))\nq.close()\n',
        "b'x'\n",
    ),
    "ring": (
        RING
        + """
with SageQueue("corpus_ring", 1 << 16) as q:
    q.put([1, "two"])
    print(q.qsize(), q.get())
""",
        "1 [1, 'two']\n",
    ),
    "children": (
        ADAPTER
        + """
import multiprocessing


def work(jobs, answers):
    while (number := jobs.get()) is not None:
        answers.put(number * number)


def main():
    processes = multiprocessing.get_context("fork")
    jobs = create_queue(backend="sage", name="corpus_jobs")
    answers = create_queue(backend="sage", name="corpus_answers")
    worker = processes.Process(target=work, args=(jobs, answers))
    worker.start()
    for number in (1, 2, 3, None):
        jobs.put(number)
    print([answers.get(timeout=30) for _ in range(3)])
    worker.join()


main()
""",
        "[1, 4, 9]\n",
    ),
    "exceptions": (
        ADAPTER
        + """
import queue

q = create_queue(backend="python", maxsize=1)
q.put_nowait(1)
try:
    q.put(2, block=False)
except queue.Full:
    print("full")
q.get_nowait()
try:
    q.get(timeout=0.01)
except queue.Empty:
    print("empty")
""",
        "full\nempty\n",
    ),
    "members": (
        ADAPTER
        + """
class Task:
    def __init__(self, name):
        self.name = name
        self.input = create_queue(backend="sage_queue", name=f"corpus_{name}_input", maxsize=1 << 20)

    def send(self, item):
        self.input.put(item)

    def work(self):
        return self.input.get()


task = Task("map")
task.send("hello")
print(task.work())
""",
        "hello\n",
    ),
    "threads": (
        WHOLE_ADAPTER
        + """
q = adapter.create_queue("python", maxsize=1)
make = adapter.create_queue
answers = make("python")


def work():
    for item in iter(q.get, None):
        answers.put(item * 2)


worker = threading.Thread(target=work)
worker.start()
for item in (1, 2, None):
    q.put(item)
worker.join()
print(answers.get(), answers.get(), answers.empty())
""",
        "2 4 True\n",
    ),
    "imports_in_functions": (
        """
def work():
    from sage_compat.queue_adapter import create_queue, is_sage_queue_available

    if is_sage_queue_available():
        q = create_queue(backend="sage", name="corpus_inner")
        q.put(None)
        print(q.get(), is_sage_queue_available())


work()
""",
        "None True\n",
    ),
    "annotations": (
        WRAPPER
        + """
def send(q: QueueWrapper, item: object) -> "QueueWrapper":
    q.put(item)
    return q


print(send(create_queue(backend="python"), 5).get())
""",
        "5\n",
    ),
    "larger_items": (
        ADAPTER
        + """
q = create_queue(backend="sage", name="corpus_large", maxsize=1 << 20)
q.put(b"x" * 200_000)
print(len(q.get()))
""",
        "200000\n",
    ),
    "spawned": (
        ADAPTER
        + """
import multiprocessing


def work(jobs, answers):
    for _ in range(3):
        answers.put(jobs.get(timeout=30) + 1)


if __name__ == "__main__":
    processes = multiprocessing.get_context("spawn")
    jobs = create_queue("sage", name="corpus_spawned_jobs")
    answers = create_queue("sage", name="corpus_spawned_answers")
    worker = processes.Process(target=work, args=(jobs, answers))
    worker.start()
    for number in range(3):
        jobs.put(number)
    print(sorted(answers.get(timeout=30) for _ in range(3)))
    worker.join()
""",
        "[1, 2, 3]\n",
    ),
    "many": (
        ADAPTER
        + """
lanes = {name: create_queue(backend="python", maxsize=2) for name in ("left", "right")}
lanes["left"].put(1)
print({name: lane.qsize() for name, lane in lanes.items()})
""",
        "{'left': 1, 'right': 0}\n",
    ),
    "default_arguments": (
        ADAPTER
        + """
def take(lane=create_queue("python"), *, block=False):
    lane.put("x")
    return lane.get(block)


print(take(), take(block=True))
""",
        "x x\n",
    ),
    "names_of_nodes": (
        ADAPTER
        + """
class Node:
    def __init__(self, name, follower=None):
        self.follower = follower
        self.inbox = create_queue(name=f"corpus_node_{name}")

    def handle(self):
        item = self.inbox.get(timeout=10)
        if self.follower is None:
            print(item)
        else:
            self.follower.inbox.put(item + [self.follower.inbox.qsize()])


sink = Node("sink")
source = Node("source", sink)
source.inbox.put(["start"])
source.handle()
sink.handle()
""",
        "['start', 0]\n",
    ),
    "whole_package": (
        WHOLE_PACKAGE
        + """
q = sage_compat.create_queue("python")
ring: sage_compat.SageQueue = sage_compat.SageQueue("corpus_package", maxsize=1 << 18)
for item in ("a", "b"):
    q.put(item)
    ring.put(item.upper())
print(q.get() + ring.get(), q.get() + ring.get(timeout=5))
""",
        "aA bB\n",
    ),
    "ternary": (
        ADAPTER
        + """
shared = False
q = create_queue("sage", name="corpus_ternary") if shared else create_queue("python", maxsize=3)
q.put(1)
print(q.qsize(), q.get())
""",
        "1 1\n",
    ),
}


def ran(text: str, folder: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    program = folder / "program.py"
    program.write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    environment |= {"SAGE_COMPAT_CENSUS": str(folder / "census")} | settings
    return subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=60, env=environment, check=False
    )


def fixed_corpus(name: str, folder: Path) -> str:
    return one(CORPUS[name][0], Granted(namespace=f'"{folder.name}"'))


@pytest.mark.parametrize("name", CORPUS)
def test_a_fixed_program_prints_what_it_should(name: str, tmp_path: Path) -> None:
    """On sage_qd alone: nothing of the old API is left in it."""
    text = fixed_corpus(name, tmp_path)

    done = ran(text, tmp_path)

    assert (done.stdout, done.stderr) == (CORPUS[name][1], "")
    assert "sage_compat" not in text.replace("# sage-compat", "")


@pytest.mark.parametrize("mode", ["legacy", "descriptor"])
@pytest.mark.parametrize("name", CORPUS)
def test_the_program_printed_the_same_before(name: str, mode: str, tmp_path: Path) -> None:
    done = ran(CORPUS[name][0], tmp_path, SAGE_COMPAT_MODE=mode)

    assert (done.stdout, done.stderr) == (CORPUS[name][1], "")


@pytest.mark.parametrize("name", CORPUS)
def test_fixing_again_changes_nothing(name: str, tmp_path: Path) -> None:
    once = fixed_corpus(name, tmp_path)

    assert one(once) == once


# -- What is written --------------------------------------------------------------------------------------------------


def test_only_calls_and_imports_change() -> None:
    text = '''
        """A module."""  # with a comment

        from sage.utils.queue_adapter import create_queue  # old


        def work( a,b ):
            """Odd   spacing stays."""
            q = create_queue( backend = 'python' , maxsize = a )   # why
            return q
    '''

    new = dedented(text).replace("sage.utils.queue_adapter import create_queue", "sage_qd import LocalQueueDescriptor")
    assert one(text) == new.replace(
        "create_queue( backend = 'python' , maxsize = a )", "LocalQueueDescriptor(maxsize=a).open()"
    )


def test_an_import_keeps_what_is_still_needed() -> None:
    text = """
        from sage.utils.queue_adapter import create_queue, get_queue_backends
        q = create_queue("python")
        print(get_queue_backends())
    """

    assert one(text).splitlines()[:3] == [
        "from sage.utils.queue_adapter import get_queue_backends",
        "from sage_qd import LocalQueueDescriptor",
        "q = LocalQueueDescriptor().open()",
    ]


def test_calls_through_a_module_stay_calls_through_a_module() -> None:
    text = """
        import sage.utils.queue_adapter as adapter
        q = adapter.create_queue("python")
    """

    assert one(text) == "import sage_qd\nq = sage_qd.LocalQueueDescriptor().open()\n"


def test_old_descriptors_are_imported_from_the_new_place() -> None:
    text = """
        from sage.platform.queue import SageQueueDescriptor as Sage, BaseQueueDescriptor
        from sage.runtime.communication.queue.ray_queue_descriptor import RayQueueDescriptor
    """

    assert one(text) == (
        "from sage_qd import BaseQueueDescriptor, SageQueueDescriptor as Sage\nfrom sage_qd import RayQueueDescriptor\n"
    )


def test_each_function_may_import_its_own_descriptor() -> None:
    text = """
        def one():
            from sage.platform.queue import RayQueueDescriptor

        def two():
            from sage.platform.queue import RayQueueDescriptor
    """

    assert one(text).count("from sage_qd import RayQueueDescriptor") == 2


def test_descriptors_that_are_no_more_keep_their_import() -> None:
    (said,) = comments(one("from sage.platform.queue import create_sage_queue, RayQueueDescriptor\n"))

    assert "SQC018 stays: sage_qd has no create_sage_queue" in said


def test_line_ends_and_encoding_stay(tmp_path: Path) -> None:
    text = "# größe\r\nfrom sage.utils.queue_adapter import create_queue\r\nq = create_queue(B)\r\n"

    new = fixed({Path("app.py"): Decoded(text, "latin-1")}, GRANTED).texts[Path("app.py")]

    assert "\n" not in new.replace("\r\n", "")
    assert new.startswith("# größe\r\n")


def test_form_feeds_and_odd_characters_shift_nothing() -> None:
    text = "\f\nfrom sage.utils.queue_adapter import create_queue\nx = 'ö\u2028\x1c'; q = create_queue('python')\n"

    new = text.replace("sage.utils.queue_adapter import create_queue", "sage_qd import LocalQueueDescriptor")
    done = fixed({Path("app.py"): Decoded(text, "utf-8")}, GRANTED)
    assert done.texts[Path("app.py")] == new.replace("create_queue('python')", "LocalQueueDescriptor().open()")


def test_a_call_inside_another_is_replaced_too() -> None:
    text = """
        from sage_ext.sage_queue import SageQueue
        q = SageQueue(name=str(SageQueue("inner").qsize()))
    """

    assert one(text, Granted(namespace='"p"', are_held=True)).count("SageQueueDescriptor(") == 2


def test_a_name_that_others_import_from_here_stays() -> None:
    files = fix(
        queues="from sage.utils.queue_adapter import create_queue\nq = create_queue('python')\n",
        user="from queues import create_queue\nq = create_queue(backend=KIND)\n",
    )

    assert files["queues"] == (
        "# sage-compat: SQC022 stays: other files may import it from here; "
        "see docs/how-to/move-off-the-old-api.md#sqc022\n"
        "from sage.utils.queue_adapter import create_queue\n"
        "from sage_qd import LocalQueueDescriptor\n"
        "q = LocalQueueDescriptor().open()\n"
    )
    assert "from queues import create_queue" in files["user"]


def test_calls_under_a_name_from_another_file_are_replaced() -> None:
    files = fix(
        queues="from sage.utils.queue_adapter import create_queue\n",
        user="from queues import create_queue\nq = create_queue('python')\n",
    )

    assert files["user"] == "from sage_qd import LocalQueueDescriptor\nq = LocalQueueDescriptor().open()\n"
    assert "SQC022 stays: nothing in this file uses it" in files["queues"]


# -- What stays -------------------------------------------------------------------------------------------------------


def comments(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().startswith("# sage-compat: ")]


OLD = "from sage.utils.queue_adapter import create_queue\nfrom sage_ext.sage_queue import SageQueue\n"
STAYS = {
    "q = create_queue(backend=kind)": "the backend kind is known at run time only",
    "q = create_queue(**options)": "it passes **options on",
    'q = create_queue("python", name=next_name())': "but working it out may have an effect",
    'q = create_queue("sage")': "it has no name",
    'q = create_queue("redis", name="a")': "raises ValueError",
    'q = SageQueue("a", namespace=ns)': "whether the namespace ns is None is known at run time only",
    'q = SageQueue("a", namespace="team")': "--every-program",
    'q = SageQueue("a", enable_multi_tenant=False)': "--every-program",
    'q = SageQueue("a")\nq.get_reference()': "uses .get_reference",
    'q = SageQueue("a")\nprint(q.maxsize)': "uses .maxsize",
    'q = SageQueue("a")\nprint(q.name)': "line 6 uses .name",
    'q = SageQueue("a")\nisinstance(q, SageQueue)': "app.py:7 asks for the old class",
    'q = create_queue("python")\nshow(q)\ndef show(x): x.get_stats()': "app.py:7 uses .get_stats of what may be it",
    'q = create_queue("python")\nprint(f"{q.get_stats()}")': "uses .get_stats",
    'q = SageQueue("a")\nshow(q)\ndef show(x): x.destroy()': "app.py:7 uses .destroy of what may be it",
    'class A:\n    make = create_queue\nq = SageQueue("a")': "app.py:5 may mean the same queue",
    'SageQueueDescriptor = 1\nq = SageQueue("a")': "SageQueueDescriptor is another thing in this file",
    'q = SageQueue("a")\nif str(e) == "Queue is full": pass': "line 7 compares the text of an old exception",
    'q = SageQueue("a", 10)\np = SageQueue("a", 20)': "and asks for other settings",
    'q = SageQueue(f"{x}_in", 10)\np = SageQueue(f"job_{y}", 20)': "and asks for other settings",
    'q = SageQueue("a")\np = create_queue(kind, name="a")': "and stays: the backend kind is known at run time only",
    'q = SageQueue("a")\nq.close()\np = SageQueue("a")': "gives its handle up",
    'def work():\n    q = SageQueue("a")\n    q.put(1)': "the other end of the queue is not in sight",
    'q = create_queue("python")\nLocalQueueDescriptor = 1': "LocalQueueDescriptor is another thing in this file",
}


@pytest.mark.parametrize("body", STAYS)
def test_what_cannot_be_proved_stays_with_the_reason(body: str) -> None:
    new = one(OLD + body + "\n")

    assert any(STAYS[body] in comment for comment in comments(new)), new
    assert [line for line in new.splitlines() if not line.strip().startswith("#")][
        -body.count("\n") - 1 :
    ] == body.splitlines()


@pytest.mark.parametrize("body", STAYS)
def test_comments_are_written_once(body: str) -> None:
    once = one(OLD + body + "\n")

    assert one(once) == once


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('SageQueue("a", 10)', 'SageQueue("b", 20)'),
        ('SageQueue(f"{x}_in", 10)', 'SageQueue(f"{x}_out", 20)'),
        ('SageQueue(f"in_{x}", 10)', 'SageQueue("out", 20)'),
        ('SageQueue("a", 10)', 'SageQueue(name="a", maxsize=10)'),
    ],
)
def test_queues_that_cannot_be_the_same_or_agree_are_replaced(first: str, second: str) -> None:
    assert comments(one(f"{OLD}p = {first}\nq = {second}\n")) == [
        "# sage-compat: SQC022 stays: nothing in this file uses it; see docs/how-to/move-off-the-old-api.md#sqc022"
    ]


@pytest.mark.parametrize("turn", range(5))
def test_the_first_attribute_is_named_every_time(turn: int) -> None:
    body = "\n".join(f"q.odd{number}" for number in range(8))

    assert "uses .odd0" in one(f'{OLD}q = SageQueue("a")\n{body}\n'), turn


def test_methods_that_old_thread_queues_never_had_keep_nothing() -> None:
    assert "LocalQueueDescriptor().open()" in one(f"{OLD}q = create_queue('python')\nwindow.destroy()\n")


def test_what_the_user_says_is_taken_for_granted() -> None:
    text = f'{OLD}q = SageQueue("a", namespace="t")\nq.close()\np = SageQueue("a", namespace="t")\n'

    new = one(text, Granted(are_held=True, is_every_program=True))

    assert new.count('SageQueueDescriptor("a", namespace="t").open()') == 2


def test_rows_without_a_new_call_say_what_to_write() -> None:
    new = one("from sage.utils.queue_config import load_queue_config\nload_queue_config(None)\n")

    (said,) = comments(new)
    assert said.startswith("# sage-compat: SQC016 is for you: BaseQueueDescriptor.from_uri(TEXT); see docs/")
    assert said.endswith("#sqc016")


def test_comments_name_lines_as_they_are_afterwards() -> None:
    new = one(f'{OLD}q = SageQueue("a", 10)\np = SageQueue("a", 20)\n').splitlines()

    said = [line for line in new if "asks for other settings" in line]
    assert new[int(said[0].split("app.py:")[1].split()[0]) - 1] == 'p = SageQueue("a", 20)'
    assert new[int(said[1].split("app.py:")[1].split()[0]) - 1] == 'q = SageQueue("a", 10)'


def test_a_comment_goes_when_its_reason_is_gone() -> None:
    new = one(f"{OLD}q = create_queue(backend=kind)\n")

    assert "SQC004 stays: the backend" not in one(new.replace("backend=kind", '"python"'))


def test_comments_in_texts_are_no_comments() -> None:
    text = 'import sage_queue\nx = """\n# sage-compat: SQC001 stays: in a text\n"""\n'

    assert '# sage-compat: SQC001 stays: in a text\n"""' in one(text)


@pytest.mark.parametrize(
    "body",
    [
        "if True: q = create_queue(kind)",
        "with create_queue(kind) as q:\n    pass",
        "@register(create_queue(kind))\n@other\ndef work():\n    pass",
        "class A:\n    def work(self):\n        try:\n            pass\n        finally:\n            create_queue(k)",
        "x = 1; q = create_queue(kind)",
        "if a:\n    pass\nelif create_queue(kind):\n    pass",
        "x = [\n    create_queue(kind)\n    for kind in kinds\n]",
    ],
)
def test_comments_leave_a_program_that_means_the_same(body: str) -> None:
    import ast

    text = f"{OLD}{body}\n"

    assert ast.dump(ast.parse(one(text))) == ast.dump(ast.parse(text))
