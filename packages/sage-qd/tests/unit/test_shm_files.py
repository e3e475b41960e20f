"""Where queues in shared memory lie: names, private folders, making, leaving and cleaning."""

import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from sage_qd import (
    GeometryMismatchError,
    InsecureQueueError,
    QueueExistsError,
    QueueNoSpaceError,
    QueueNotFoundError,
    SharedMemoryQueue,
    SharedMemoryQueueDescriptor,
    UntrustedPayloadError,
    clean_shared_memory,
)
from sage_qd.queues import shm_places, shm_segment
from sage_qd.testing import wait_for

FORK = multiprocessing.get_context("fork")
SEMAPHORES = Path("/dev/shm")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of other tests is there; what a test leaves is seen."""
    monkeypatch.setenv("SAGE_QD_SHM_FOLDER", str(tmp_path))
    return tmp_path / f"sage-qd-shm-{os.geteuid()}"


def fresh(**settings: Any) -> SharedMemoryQueueDescriptor:
    return SharedMemoryQueueDescriptor(**{"queue_id": f"files-{uuid.uuid4().hex}"} | settings)


def semaphores_of(instance: str) -> list[str]:
    return sorted(path.name for path in SEMAPHORES.glob(f"sem.sqd-{instance[:21]}*"))


@pytest.mark.parametrize("queue_id", ["jobs", "任务/队列", "a b~c", "..", "x" * 128, "/", "CON"])
def test_any_text_is_a_name(queue_id: str, own_folder: Path) -> None:
    with fresh(queue_id=queue_id).open() as queue:
        queue.put("here")
        assert fresh(queue_id=queue_id).get(timeout=0) == "here"
        assert {path.parent for path in own_folder.rglob("*")} == {own_folder}


def test_folder_and_files_are_private_whatever_the_umask_says(own_folder: Path) -> None:
    umask = os.umask(0)
    try:
        with fresh().open() as queue:
            queue.put("x")
            lease = queue.lease()
            assert stat.S_IMODE(own_folder.stat().st_mode) == 0o700
            assert {stat.S_IMODE(path.stat().st_mode) for path in own_folder.iterdir()} == {0o600}
            assert len(list(own_folder.iterdir())) == 3
            lease.ack()
    finally:
        os.umask(umask)


def test_the_last_one_to_leave_takes_everything_along(own_folder: Path) -> None:
    descriptor = fresh()
    first, second = descriptor.open(), descriptor.attach()
    instance = first.instance
    first.put_many([1, 2])
    lease = second.lease()

    first.close()
    assert own_folder.exists()
    second.close()

    assert not own_folder.exists()
    assert semaphores_of(instance) == []
    assert not lease.settled


def test_a_handle_that_is_dropped_leaves_too(own_folder: Path) -> None:
    queue = SharedMemoryQueue[Any].open("dropped")
    queue.put(1)

    del queue

    assert not own_folder.exists()


def test_a_folder_that_others_may_enter_is_refused(own_folder: Path) -> None:
    own_folder.mkdir(mode=0o700)
    own_folder.chmod(0o750)

    for call in (fresh().open, fresh().attach, clean_shared_memory):
        with pytest.raises(InsecureQueueError):
            call()


def test_a_link_instead_of_the_folder_is_refused(own_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    own_folder.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(InsecureQueueError, match="not a folder"):
        fresh().open()


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "open to others"])
def test_what_is_no_private_file_is_refused(own_folder: Path, tmp_path: Path, kind: str) -> None:
    own_folder.mkdir(mode=0o700)
    descriptor = fresh()
    path = own_folder / descriptor.queue_id
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path.touch()
        path.chmod(0o644)

    for call in (descriptor.open, descriptor.attach):
        with pytest.raises(InsecureQueueError):
            call()


def test_other_settings_are_told_and_leave_the_queue() -> None:
    with fresh(queue_id="q", maxsize=3).open() as queue:
        queue.put("kept")
        with pytest.raises(GeometryMismatchError, match="maxsize is 3, wanted 4"):
            fresh(queue_id="q", maxsize=4).open()
        with pytest.raises(GeometryMismatchError, match="capacity_bytes"):
            fresh(queue_id="q", maxsize=3, capacity_bytes=4096).attach()
        with pytest.raises(UntrustedPayloadError, match="pickle"):
            fresh(queue_id="q", maxsize=3, codec="json").open()
        assert queue.get(timeout=0) == "kept"


def test_create_needs_a_free_name() -> None:
    with fresh(queue_id="q").create(), pytest.raises(QueueExistsError):
        fresh(queue_id="q").create()


def test_open_needs_the_queue_when_it_may_make_none() -> None:
    with pytest.raises(QueueNotFoundError, match="'nobody'"):
        fresh(queue_id="nobody").open(create=False)


def test_without_room_nothing_is_left(own_folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(QueueNoSpaceError, match="smaller capacity"):
            fresh().open()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert list(own_folder.glob("*")) == []  # the collector, closing a queue of an earlier test, may drop the folder


# -- Deaths -----------------------------------------------------------------------------------------------------------


def use_and_wait(descriptor: SharedMemoryQueueDescriptor, ready: Any) -> None:
    queue = descriptor.open(create=True)
    queue.put_many(["held", "kept"])
    lease = queue.lease()
    ready.set()
    signal.pause()
    lease.ack()


def killed_user(descriptor: SharedMemoryQueueDescriptor) -> None:
    """Leave a queue as a killed process leaves it."""
    ready = FORK.Event()
    process = FORK.Process(target=use_and_wait, args=(descriptor, ready))
    process.start()
    assert ready.wait(60)
    process.kill()
    process.join(60)


def test_what_a_killed_user_left_can_be_opened(own_folder: Path) -> None:
    descriptor = fresh()
    killed_user(descriptor)

    with descriptor.open(create=False) as queue:
        lease = queue.lease(timeout=0)
        assert (lease.value, lease.redelivered) == ("held", True)
        lease.ack()
        assert queue.get(timeout=0) == "kept"

    assert not own_folder.exists()


def test_cleaning_removes_what_nobody_uses_and_nothing_else(own_folder: Path) -> None:
    dead, alive = fresh(), fresh()
    killed_user(dead)
    with dead.open(create=False) as queue:
        instance = queue.instance
        left = sorted(str(path) for path in own_folder.iterdir())
        assert clean_shared_memory() == []
        os.rename(own_folder / dead.queue_id, own_folder / "renamed")  # so that leaving does not remove it
    os.rename(own_folder / "renamed", own_folder / dead.queue_id)
    junk = [own_folder / "~new-0123", own_folder / f"gone~{'0' * 32}"]
    for path in junk:
        path.touch(0o600)

    with alive.open() as queue:
        queue.put("stays")
        removed = clean_shared_memory()
        assert alive.get(timeout=0) == "stays"
        alive.close()

    assert set(removed) <= {*left, *map(str, junk)}
    assert {str(own_folder / dead.queue_id), *map(str, junk)} <= set(removed)
    assert semaphores_of(instance) == []
    assert clean_shared_memory() == []
    assert not own_folder.exists()


def create_until_killed(name: str, started: Any) -> None:
    started.set()
    while True:
        with SharedMemoryQueueDescriptor(name).open() as queue:
            queue.put("x")
            queue.get()


def test_creators_that_are_killed_at_random_moments_block_nobody(own_folder: Path) -> None:
    name = f"files-{uuid.uuid4().hex}"
    for round_number in range(25):
        started = FORK.Event()
        processes = [FORK.Process(target=create_until_killed, args=(name, started)) for _ in range(2)]
        for process in processes:
            process.start()
        assert started.wait(60)
        for process in processes:
            process.join(round_number * 0.0007)
            process.kill()
        for process in processes:
            process.join(60)
            assert process.exitcode == -signal.SIGKILL

        with SharedMemoryQueueDescriptor(name).open() as queue:
            queue.clear()
            queue.put("fine")
            assert queue.get(timeout=0) == "fine"

    clean_shared_memory()
    assert not own_folder.exists()


def test_exit_without_closing_leaves_and_says_nothing(own_folder: Path) -> None:
    source = (
        "from sage_qd import SharedMemoryQueueDescriptor as D\n"
        "q = D('exit').open(); q.put([1]); lease = q.lease(); print(lease.value)"
    )

    done = subprocess.run([sys.executable, "-Wa", "-c", source], capture_output=True, text=True, timeout=60, check=True)

    assert (done.stdout, done.stderr) == ("[1]\n", "")
    assert not own_folder.exists()


def outlive(descriptor: SharedMemoryQueueDescriptor, ready: Any, go: Any) -> None:
    queue = descriptor.attach()
    ready.set()
    go.wait(60)
    assert queue.get(timeout=0) == "x"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_that_leaves_last_removes_the_queue(own_folder: Path, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    ready, go = context.Event(), context.Event()
    descriptor = fresh()
    queue = descriptor.open()
    queue.put("x")
    child = context.Process(target=outlive, args=(queue.descriptor, ready, go))
    child.start()
    assert ready.wait(60)

    queue.close()
    assert own_folder.exists()
    go.set()
    child.join(60)

    assert child.exitcode == 0
    assert not own_folder.exists()


def test_an_unrelated_process_that_leaves_removes_nothing() -> None:
    """As a resource tracker would; nothing here is known to one."""
    with fresh(queue_id="shared").open() as queue:
        source = "from sage_qd import SharedMemoryQueueDescriptor as D; D('shared').put('from elsewhere')"
        subprocess.run([sys.executable, "-c", source], timeout=60, check=True)

        assert queue.get(timeout=0) == "from elsewhere"
        assert fresh(queue_id="shared").open().empty()


# -- Fork -------------------------------------------------------------------------------------------------------------


def use_inherited(queue: SharedMemoryQueue[Any], go: Any) -> None:
    go.wait(60)
    for number in range(200):
        queue.put(["child", number])


def test_parent_and_forked_child_exclude_each_other() -> None:
    with fresh().open() as queue:
        go = FORK.Event()
        child = FORK.Process(target=use_inherited, args=(queue, go))
        child.start()
        go.set()
        for number in range(200):
            queue.put(["parent", number])
        child.join(60)

        taken = [queue.get(timeout=0) for _ in range(400)]

        assert child.exitcode == 0
        for who in ("child", "parent"):
            assert [number for name, number in taken if name == who] == list(range(200))
        assert queue.stats().puts == 400


def test_a_child_without_descriptors_of_its_own_has_a_closed_handle_and_the_parent_goes_on() -> None:
    with fresh().open() as queue:
        kept = queue._segment.path
        hidden = f"{kept}-hidden"
        os.rename(kept, hidden)  # so that the files cannot be opened for the child
        pid = os.fork()
        if not pid:
            os._exit(0 if queue.closed else 1)
        os.rename(hidden, kept)
        _, status = os.waitpid(pid, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        queue.put("x")
        assert queue.get(timeout=0) == "x"


def test_a_lease_stays_with_the_process_that_took_it() -> None:
    with fresh().open() as queue:
        queue.put("mine")
        lease = queue.lease()
        pid = os.fork()
        if not pid:
            try:
                lease.ack()
            except Exception as error:  # noqa: BLE001  (its name is the exit code)
                os._exit(7 if type(error).__name__ == "FencedError" else 1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)

        assert os.waitstatus_to_exitcode(status) == 7
        lease.ack()
        assert queue.empty()


def test_the_folder_is_that_for_temporary_files_where_there_is_no_shared_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SAGE_QD_SHM_FOLDER")
    monkeypatch.setattr(shm_places, "_MEMORY", str(tmp_path / "missing"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert shm_places.folder() == tmp_path / f"sage-qd-shm-{os.geteuid()}"
    wait_for(lambda: shm_segment.clean_shared_memory() == [], "there is nothing to clean")
