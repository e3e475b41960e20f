"""The page of a job: complete in itself, and it names the place where the job is stuck."""

import itertools
import shutil
import subprocess
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sage_qd.runtime import Dispatcher, LocalEnvironment
from sage_qd.runtime.page import job_page
from sage_qd.testing import wait_for

pytestmark = pytest.mark.once
PATIENCE = 60.0


class Outline(HTMLParser):
    """Which elements are open, what was said, and whether anything is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    found.close()
    assert found.open == []
    return found


class Bill:
    """A step that is stuck until it may go on."""

    def __init__(self) -> None:
        self.taken, self.going = threading.Event(), threading.Event()

    def __call__(self, item: int) -> int:
        self.taken.set()
        self.going.wait(PATIENCE)
        return item

    def await_queue(self, dispatcher: Dispatcher) -> None:
        """Wait until it has taken the first item and its queue is full: from then on nothing moves."""
        assert self.taken.wait(PATIENCE)
        wait_for(lambda: dispatcher.snapshot()["tasks"]["bill_0"]["load"] == 1.0, "it is stuck")


def test_a_running_job_shows_where_it_is_stuck(tmp_path: Path) -> None:
    bill = Bill()
    env = LocalEnvironment("shop <1>", batch_size=1)
    orders = env.from_collection(range(1000), name="orders").map(lambda x: x, name="check", parallelism=2)
    orders.map(bill, name="bill", buffer_size=4).collect()
    dispatcher = env.submit()
    bill.await_queue(dispatcher)

    dispatcher.write_page(tmp_path / "job.html")
    bill.going.set()
    dispatcher.stop()

    found = outline((tmp_path / "job.html").read_text())
    text = "".join(found.texts)
    assert "shop <1>" in text
    assert "running · 4 tasks · the slow task is bill_0" in text
    assert all(name in text for name in ("orders_0", "check_0", "check_1", "bill_0", "collect_0"))
    assert found.tags.count("path") == 2 + 2 + 1
    assert found.fetched == []
    assert "script" not in found.tags


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_reads_the_page_as_it_was_written(tmp_path: Path) -> None:
    bill = Bill()
    env = LocalEnvironment("shop <1> & co", batch_size=1, lanes="per_edge")
    env.from_source(itertools.count, name="orders").map(lambda x: x, name="check", parallelism=2).sink(
        bill, name="bill", buffer_size=4
    )
    dispatcher = env.submit()
    bill.await_queue(dispatcher)
    path = tmp_path / "job.html"
    dispatcher.write_page(path)
    bill.going.set()
    dispatcher.stop()

    words = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    picture = f"--screenshot={tmp_path / 'job.png'}"
    seen = subprocess.run(
        [*words, "--dump-dom", path.as_uri()], capture_output=True, text=True, check=True, timeout=100
    )
    subprocess.run([*words, picture, path.as_uri()], capture_output=True, check=True, timeout=100)

    shown, written = outline(seen.stdout), outline(path.read_text())
    assert "".join(shown.texts).split() == "".join(written.texts).split()
    assert [tag for tag in shown.tags if tag != "tbody"] == [tag for tag in written.tags if tag != "tbody"]
    assert "the slow task is bill_0" in "".join(shown.texts)
    assert (tmp_path / "job.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_job_has_its_error_and_figures() -> None:
    env = LocalEnvironment("job")
    env.from_collection([1, 2]).map(lambda x: 1 // (x - 2), name="divide").sink(str)
    dispatcher = env.submit()
    try:
        dispatcher.wait(timeout=30)
    except ZeroDivisionError:
        text = "".join(outline(job_page(dispatcher.snapshot())).texts)
    dispatcher.stop()

    assert "failed" in text
    assert "ZeroDivisionError: integer division or modulo by zero" in text
    assert "slow task" not in text


def test_a_page_of_many_tasks_is_made_in_no_time() -> None:
    tasks = {f"map_{n}": {"taken": n, "out": n, "errors": 0, "skipped": 0, "restarts": 0} for n in range(1000)}
    edges = [{"source": f"map_{n}", "target": f"map_{n + 1}", "queue": ""} for n in range(999)]
    snapshot: dict[str, Any] = {"job": "long", "state": "running", "error": None, "tasks": tasks, "queues": {}}

    started = time.process_time()
    page = job_page(snapshot | {"edges": edges})

    assert page.count("<tr>") == 1001
    assert time.process_time() - started < 30  # a bound for an endless loop, not for its speed
