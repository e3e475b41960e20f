"""The page of a job: complete in itself, and it names the place where the job is stuck."""

import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from sage_qd.runtime import LocalEnvironment
from sage_qd.runtime.page import job_page
from sage_qd.testing import wait_for


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


def test_a_running_job_shows_where_it_is_stuck(tmp_path: Path) -> None:
    stuck = threading.Event()
    env = LocalEnvironment("shop <1>", batch_size=1)
    env.from_collection(range(1000), name="orders").map(lambda x: x, name="check", parallelism=2).map(
        lambda x: stuck.wait(0.05) or x, name="bill", buffer_size=4
    ).collect()
    dispatcher = env.submit()
    wait_for(lambda: dispatcher.snapshot()["queues"]["input_bill_0"]["load"] == 1.0, "it is stuck")

    dispatcher.write_page(tmp_path / "job.html")
    stuck.set()
    dispatcher.stop()

    found = outline((tmp_path / "job.html").read_text())
    text = "".join(found.texts)
    assert "shop <1>" in text
    assert "running · 4 tasks · the slow task is bill_0" in text
    assert all(name in text for name in ("orders_0", "check_0", "check_1", "bill_0", "collect_0"))
    assert found.tags.count("path") == 2 + 2 + 1
    assert found.fetched == []
    assert "script" not in found.tags


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
