"""Row R9: descriptors from strangers.

Makes documents, URIs and pools of all kinds, valid and spoiled: members and settings changed, dropped, doubled, mixed
between kinds, nested, and their texts cut, flipped and spliced. Each is read the way it would arrive. Whatever is read
must be what was written, and whatever is refused must be refused with DescriptorError. While reading, an audit hook
watches for anything that could run code or touch a file or socket, and the processor time is taken.
"""

from __future__ import annotations

import json
import os
import random
import string
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from multiprocessing import get_context
from typing import Any

import row

INPUTS = {False: 500_000, True: 20_000_000}
SHARE = 10_000  # inputs of one job; each has a seed of its own
SLOW_SECONDS = 0.05
SHOWN = 5
WATCHED = frozenset(
    (
        *("import", "exec", "compile", "code", "marshal", "pickle", "ctypes", "sys"),
        *("open", "os", "shutil", "glob", "tempfile", "mmap", "subprocess", "socket", "urllib"),
    )
)
SETTLED = ("read", "refused", "absent")  # absent: of a kind whose module this build does not have


class Watch:
    """Notes audit events, while it is told to."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.watching = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watching and event.partition(".")[0] in WATCHED:
            self.seen.append(f"{event} {arguments!r:.200}")


def prepare() -> None:
    """In each worker: load the kinds there are, then watch."""
    global watch, kinds, absent  # one of each for the process
    os.environ.pop("SAGE_QD_QUEUE_TYPES", None)
    import sage_qd
    from sage_qd.descriptors.registry import queue_kind

    kinds, absent = [], set()
    for name in sage_qd.known_queue_types():  # reads what is installed, once
        try:
            kinds.append(queue_kind(name))
        except sage_qd.BackendUnavailableError:
            absent.add(name)
    watch = Watch()


watch: Watch
kinds: list[Any]
absent: set[str]

# -- Inputs -----------------------------------------------------------------------------------------------------------

ODD_NUMBERS = (0, -1, 1, 2**31, 2**53, 2**53 + 1, -(2**63), 10**400, 1.5, 1e308, -0.0, float("nan"), float("inf"))
ODD_TEXTS = ("", "\x00", "../../etc/passwd", "os.system", "__class__", "{0.__class__}", "%s%n", "\ud800", "x" * 1025)
ODD_OTHERS = (
    None,
    True,
    False,
    [],
    {},
    [[[[[[]]]]]],
    {"a": {"b": {"c": {"d": {}}}}},
    [1] * 65,
    "cos\nsystem\n(S'x'\ntR.",
)
SPELLINGS = (
    *("local", "python_queue", "multiprocessing", "sage", "shm", "multiprocess_shm", "ray", "ray_actor", "rpc", "grpc"),
    *("http", "websocket", "auto", "nothing", "os.system", "sage_qd.ring", "Local_Queue"),
)
FRAGMENTS = (
    '{"',
    '":',
    "[[",
    "]}",
    "\\u0000",
    "\\ud800",
    "NaN",
    "Infinity",
    "1e999",
    "9" * 30,
    '""',
    "#",
    "?",
    "&",
    "%2F",
    "%",
)
LETTERS = string.ascii_letters + string.digits + '{}[]":,\\/%?#&=-_.+ \n\x00é\u4efb\U0001f600'


def value(draw: random.Random) -> Any:
    """A value where another one was expected; a new one each time, since it may be spoiled, too."""
    return deepcopy(draw.choice(draw.choice((ODD_NUMBERS, ODD_TEXTS, ODD_OTHERS))))


def setting_value(draw: random.Random, setting: Any) -> Any:
    """A value that a setting mostly takes."""
    if draw.random() < 0.7:
        return setting.default
    if setting.type is bool:
        return draw.random() < 0.5
    if setting.type is int:
        low, high = setting.low or 0, setting.high or 2**31
        return draw.choice((low, high, draw.randint(low, high)))
    words = (
        setting.default or "",
        "pickle",
        "json",
        "team",
        "threads",
        "hosts",
        "fifo",
        "ray",
        "db1:7000",
        "localhost",
    )
    return draw.choice(words)


def document(draw: random.Random) -> dict[str, Any]:
    """A document that is right, or nearly."""
    kind = draw.choice(kinds)
    made = {
        "version": 1,
        "queue_id": "".join(draw.choices(LETTERS, k=draw.randint(1, 12))),
        "queue_type": kind.queue_type,
        "class_name": kind.__name__,
        "metadata": {each.name: setting_value(draw, each) for each in kind.settings},
        "created_timestamp": draw.choice((0, 1.5, 1_763_948_932.25, time.time())),
        "can_serialize": kind.can_serialize if isinstance(kind.can_serialize, bool) else True,
    }
    if draw.random() < 0.2:
        made["instance"] = f"{draw.getrandbits(128):032x}"
    if draw.random() < 0.2:
        made["x-own"] = draw.choice((1, "text", [1, 2], {"a": None}))
    return made


def spoil(draw: random.Random, made: dict[str, Any]) -> None:
    """Change one thing of a document."""
    inside = made["metadata"] if draw.random() < 0.5 and isinstance(made.get("metadata"), dict) else made
    names = list(inside)
    change = draw.randrange(6)
    if change == 0 and names:
        del inside[draw.choice(names)]
    elif change == 1:
        inside[draw.choice((*ODD_TEXTS, "__dict__", "_queue", "x-", "hmac", "settings"))] = value(draw)
    elif change == 2:
        made["queue_type"] = draw.choice((*SPELLINGS, *sorted(absent), *(kind.queue_type for kind in kinds)))
    elif change == 3:
        made["metadata"] = document(draw)["metadata"]
    elif change == 4:
        for name in ("version", "class_name", "can_serialize", "created_timestamp"):  # as before versions were written
            if draw.random() < 0.7:
                made.pop(name, None)
    elif names:
        inside[draw.choice(names)] = value(draw)


def damaged(draw: random.Random, text: str) -> str:
    """A text with something cut out, put in, doubled or exchanged."""
    for _ in range(draw.randint(1, 4)):
        at = draw.randint(0, len(text))
        to = min(len(text), at + draw.choice((0, 1, 1, 2, 8, 64)))
        new = draw.choice((draw.choice(FRAGMENTS), draw.choice(LETTERS), text[at:to] * 2, "", "[" * 70, " " * 20_000))
        text = text[:at] + new + text[to:]
    return text


def uri(draw: random.Random) -> str:
    """A URI that is right, or nearly."""
    kind = draw.choice(kinds)
    scheme = kind.uri_scheme or draw.choice(SPELLINGS)
    chosen = [each for each in kind.settings if draw.random() < 0.3]
    pairs = "&".join(f"{each.written_name}={setting_value(draw, each)}" for each in chosen).replace("True", "true")
    space = draw.choice(("", "default", "team%20a", "localhost:8000"))
    tail = f"#{draw.getrandbits(128):032x}" if draw.random() < 0.2 else ""
    return f"{scheme}://{space}/{draw.choice(('jobs', 'a%2Fb', '%E4%BB%BB', '..'))}{f'?{pairs}' if pairs else ''}{tail}"


Reader = Callable[[], Any]


def reader(draw: random.Random) -> tuple[Reader, str, Any]:
    """One input, and how it is read: what to call, its name, and the input to show."""
    from sage_qd import BaseQueueDescriptor, QueueDescriptorPool, resolve_descriptor

    form = draw.random()
    if form < 0.2:
        text = uri(draw)
        text = damaged(draw, text) if draw.random() < 0.6 else text
        return lambda: BaseQueueDescriptor.from_uri(text), "from_uri", text
    made = document(draw)
    for _ in range(draw.choice((0, 0, 0, 1, 1, 2, 3))):
        spoil(draw, made)
    if form < 0.35:
        if draw.random() < 0.1:
            made[draw.choice((7, None, b"x"))] = draw.choice((object(), {1, 2}, b"x", lambda: 0))
        return lambda: resolve_descriptor(made), "resolve_descriptor", made
    text = json.dumps(made, ensure_ascii=draw.random() < 0.5, default=str)
    if form < 0.4:
        pool = f'{{"a": {text}, "b/~": {json.dumps(document(draw))}}}'
        pool = damaged(draw, pool) if draw.random() < 0.7 else pool
        return lambda: QueueDescriptorPool.deserialize_pool(pool)["a"], "deserialize_pool", pool
    if form < 0.43:
        text = "".join(draw.choices([*FRAGMENTS, *LETTERS], k=draw.choice((3, 30, 3000))))
    elif form < 0.7:
        text = damaged(draw, text)
    if form > 0.95:
        data = bytearray(text.encode("utf-8", "replace"))
        for _ in range(draw.randint(1, 5)):
            if data:
                data[draw.randrange(len(data))] = draw.randrange(256)
        return lambda: BaseQueueDescriptor.from_json(data), "from_json", data
    key = b"key" if draw.random() < 0.05 else None
    return lambda: BaseQueueDescriptor.from_json(text, key=key), "from_json", text


# -- Reading ----------------------------------------------------------------------------------------------------------


def settle(read: Reader) -> tuple[str, float]:
    """Read one input: how that ended, and the processor seconds it took."""
    import sage_qd

    watch.watching = True
    started = time.thread_time()
    try:
        found = read()
    except sage_qd.DescriptorError:
        outcome = "refused"
    except sage_qd.BackendUnavailableError as error:
        watch.seen.clear()  # it looked for the module of a kind that this build does not have
        outcome = "absent" if error.backend in absent else f"{error!r:.300}"
    except KeyError as error:
        outcome = "refused" if error.args == ("a",) else f"{error!r:.300}"  # a pool that was read, without this name
    except BaseException as error:  # noqa: BLE001  (any other exception is what is looked for)
        outcome = f"{type(error).__name__}: {error!r:.300}"
    else:
        outcome = "read"
    seconds = time.thread_time() - started
    watch.watching = False
    return (flaw(found) or "read" if outcome == "read" else outcome), seconds


def flaw(found: Any) -> str | None:
    """What is wrong with a descriptor that was read, if anything: it must be one, and be written and read the same."""
    from sage_qd import BaseQueueDescriptor

    if not isinstance(found, BaseQueueDescriptor):
        return f"no descriptor but {found!r:.200}"
    if found.is_initialized():
        return f"{found!r:.200} was opened"
    text = found.to_json(for_this_process=True)
    again = BaseQueueDescriptor.from_json(text)
    if again != found or type(again) is not type(found) or again.to_json(for_this_process=True) != text:
        return f"{found!r:.200} reads back as {again!r:.200}"
    return None


def job(seed: int, count: int) -> tuple[Counter[str], list[str], float]:
    """Read a share of the inputs: outcomes, descriptions of the bad ones, and the longest processor time."""
    outcomes: Counter[str] = Counter()
    bad: list[str] = []
    longest = 0.0
    draw = random.Random(seed)
    for number in range(count):
        read, name, shown = reader(draw)
        outcome, seconds = settle(read)
        longest = max(longest, seconds)
        flaws = {"other": outcome not in SETTLED, "events": bool(watch.seen), "slow": seconds > SLOW_SECONDS}
        outcomes[outcome if not flaws["other"] else "other"] += 1
        for what in ("events", "slow"):
            outcomes[what] += flaws[what]
        if any(flaws.values()):
            words = [outcome, *watch.seen, f"{seconds * 1e3:.1f} ms", f"{name} of {shown!r:.2000}"]
            bad.append(f"input {number} of seed {seed}: {'; '.join(words)}")
        watch.seen.clear()
    return outcomes, bad[:SHOWN], longest


def shares(options: Any) -> Iterator[tuple[int, int]]:
    """Seed and size of each job."""
    for number in range(INPUTS[options.long] // SHARE):
        yield options.seed * 1_000_003 + number, SHARE


def main() -> int:
    """Read everything on all cores and write the row."""
    options = row.arguments(__doc__ or "")
    wanted = INPUTS[options.long]
    ledger = row.Row.begin(
        options,
        "R9",
        "descriptors of strangers: answers other than DescriptorError / code or files touched / parses > 50 ms",
        f"0/0/0 of {wanted:,}",
    )
    outcomes: Counter[str] = Counter()
    longest = 0.0
    shown = 0
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"), initializer=prepare) as workers:
        for found, bad, slowest in workers.map(job, *zip(*shares(options), strict=True)):
            outcomes += found
            longest = max(longest, slowest)
            for text in bad[: SHOWN - shown]:
                shown += 1
                print(text, flush=True)
    done = sum(outcomes[name] for name in (*SETTLED, "other"))
    flaws = [outcomes[name] for name in ("other", "events", "slow")]
    both = min(outcomes["read"], outcomes["refused"]) >= done // 20  # else nothing was tried on one side
    text = (
        f"{flaws[0]}/{flaws[1]}/{flaws[2]} of {done:,}; {outcomes['read']:,} read and written the same,"
        f" {outcomes['refused']:,} refused, {outcomes['absent']:,} of kinds not in this build;"
        f" longest {longest * 1e3:.1f} ms of processor time"
    )
    return 0 if ledger.report(text, done == wanted and both and not any(flaws)) else 1


if __name__ == "__main__":
    sys.exit(main())
