"""Looking at a segment from outside: everything is seen, and nobody notices."""

import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sage_qd.errors import CorruptQueueError, IncompatibleQueueError, InsecureQueueError, QueueNotFoundError
from sage_qd.ring import Ring, create
from sage_qd.ring.sight import EVENT_PLACES, look_at

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]


def test_the_counters_are_those_of_the_ring(ring: Ring) -> None:
    ring.put_many([b"a", b"bb", b"ccc"])
    ring.get()

    sight = look_at(ring.path or "")

    stats = ring.stats()
    assert sight.stats.puts == 3
    assert sight.stats == stats.__class__(
        **{name: getattr(stats, name) for name in stats.__slots__ if name != "oldest_age_ns"},
        oldest_age_ns=sight.stats.oldest_age_ns,
    )


def test_the_settings_are_those_of_the_ring(new_ring: NewRing) -> None:
    ring = new_ring(max_items=7, single_producer=True, checksum=True, codec=3, spill_threshold=500)

    sight = look_at(ring.path or "")

    assert (sight.instance, sight.created_ns) == (ring.instance, ring.created_ns)
    assert (sight.max_items, sight.codec, sight.spill_threshold) == (7, 3, 500)
    assert (sight.single_producer, sight.single_consumer, sight.checksum, sight.kept) == (True, False, True, False)


def test_leases_and_roles_are_shown_with_their_holders(new_ring: NewRing) -> None:
    ring = new_ring(single_consumer=True)
    ring.put_many([b"a", b"b", b"c"])
    leases = [ring.lease(), ring.lease()]

    sight = look_at(ring.path or "")

    assert [(each.pid, each.leases) for each in sight.participants] == [(os.getpid(), 2)]
    assert sight.consumer_role == sight.participants[0].slot
    assert sight.leases_counted
    for lease in leases:
        lease.ack()


def test_looking_changes_no_byte_of_the_segment(ring: Ring) -> None:
    ring.put_many([b"a"] * 100)
    before = Path(ring.path or "").read_bytes()

    for _ in range(10):
        look_at(ring.path or "")

    assert Path(ring.path or "").read_bytes() == before


def test_looking_all_the_time_keeps_no_segment_from_going_with_its_last_user(
    namespace: str, start: Callable, tmp_path: Path
) -> None:
    watcher = start(
        """
from sage_qd.ring.sight import look_at
path, looks = str(directory() / sys.argv[1] / "ring"), 0
say("ready")
while not os.path.exists(sys.argv[2]):
    try:
        looks += bool(look_at(path))
        open(sys.argv[3], "w").close()
    except errors.QueueNotFoundError:
        pass
say(looks)
""",
        tmp_path / "stop",
        tmp_path / "seen",
    )
    watcher.hear()

    made = 0
    while made < 300 or not (tmp_path / "seen").exists():  # on a busy machine it may come late
        made += 1
        with create("ring", namespace=namespace, capacity_bytes=4096) as ring:
            path = Path(ring.path or "")
        assert not path.exists()
    (tmp_path / "stop").touch()

    assert int(watcher.hear()) > 0
    watcher.finish()


def test_a_watcher_killed_at_any_moment_changes_nothing(ring: Ring, namespace: str, start: Callable) -> None:
    for _ in range(5):
        watcher = start("""
from sage_qd.ring.sight import look_at
path = str(directory() / sys.argv[1] / "ring")
say("ready")
while True:
    look_at(path)
""")
        watcher.hear()
        for number in range(200):
            ring.put(b"%d" % number)
            ring.get()
        watcher.signal(signal.SIGKILL)
        watcher.kill()

    assert ring.stats().put_recoveries == ring.stats().get_recoveries == 0
    assert ring.stats().depth == 0


def test_looks_at_a_ring_that_grows_and_is_at_work_are_never_refused(
    ring: Ring, namespace: str, start: Callable
) -> None:
    worker = start("""
ring = attach("ring", namespace=sys.argv[1])
say("ready")
size = 1 << 20
for turn in range(6):
    for number in range(2000):
        ring.put(bytes(number % 300))
        ring.lease().ack()
    size *= 2
    ring.resize(size)
say("done")
""")
    worker.hear()

    for _ in range(500):
        look_at(ring.path or "")

    assert worker.hear() == "done"
    worker.finish()
    sight = look_at(ring.path or "")
    assert (sight.stats.capacity_bytes, sight.resizes) == (1 << 26, 6)


def test_what_is_no_segment_is_refused(ring: Ring, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x" * 100_000)
    (tmp_path / "text").chmod(0o600)
    (tmp_path / "link").symlink_to(ring.path or "")
    (tmp_path / "open").write_bytes(b"")
    (tmp_path / "open").chmod(0o644)

    with pytest.raises(CorruptQueueError):
        look_at(str(tmp_path / "text"))
    for name in ("link", "open"):
        with pytest.raises(InsecureQueueError):
            look_at(str(tmp_path / name))
    with pytest.raises(QueueNotFoundError):
        look_at(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("offset", "error"), [(0, CorruptQueueError), (8, IncompatibleQueueError), (64, CorruptQueueError)]
)
def test_a_damaged_header_is_refused(ring: Ring, tmp_path: Path, offset: int, error: type[Exception]) -> None:
    copy = tmp_path / "copy"
    image = bytearray(Path(ring.path or "").read_bytes())
    image[offset] ^= 0xFF
    copy.write_bytes(image)
    copy.chmod(0o600)

    with pytest.raises(error):
        look_at(str(copy))


def test_every_single_damaged_byte_behind_the_identity_is_harmless_or_refused(ring: Ring, tmp_path: Path) -> None:
    ring.put_many([b"a"] * 50)
    lease = ring.lease()
    image = Path(ring.path or "").read_bytes()
    lease.ack()
    copy = tmp_path / "copy"
    copy.write_bytes(image)
    copy.chmod(0o600)
    places = [*range(256, 312), *range(384, 392), *range(640, 648), *range(896, 904), *range(1152, 1192)]
    places += [*range(4096, 4128), *range(20480, 20480 + 64)]

    with copy.open("r+b", buffering=0) as file:
        for place in places:
            for value in (0x00, 0x7F, 0xFF):
                file.seek(place)
                file.write(bytes([value]))
                with suppress(CorruptQueueError):
                    look_at(str(copy))
            file.seek(place)
            file.write(image[place : place + 1])


def test_the_places_that_threads_sleep_on_are_those_of_the_layout_page() -> None:
    page = (Path(__file__).parents[4] / "docs" / "reference" / "segment-layout.md").read_text()
    header = page[page.index("`sq_header`") :]
    offsets = {name: int(at) for at, name in re.findall(r"^\| (\d+) \| \d+ \| `(\w+)` \|", header, re.MULTILINE)[:9]}

    assert {
        offsets["not_empty"]: "get",
        offsets["not_full"]: "put",
        offsets["producers"]: "put lock",
        offsets["consumers"]: "get lock",
    } == EVENT_PLACES
