"""Which mode a queue has, and exact errors for what is wrong."""

import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from sage_compat import (
    ConfigurationError,
    LegacyCallError,
    Mode,
    SageQueue,
    configuration,
    create_queue,
    explain,
    records,
    set_mode,
)
from sage_compat.old_behaviour import has_quirk, quirks
from sage_compat.queue_auto_fallback import QueueBackendSelector, QueueBackendType
from sage_compat.rolling import forget_decisions, rollback
from sage_compat.rules import check, decide


def configured(text: str, name: str = "sage-compat.toml") -> Path:
    path = Path.cwd() / name
    path.write_text(text)
    return path


def test_nothing_said_is_legacy() -> None:
    decision = decide("orders")

    assert (decision.mode, decision.is_new, decision.rule) == (Mode.LEGACY, False, None)


def test_the_first_rule_that_matches_wins_on_each_level() -> None:
    configured(
        'mode = "shadow"\n[[rules]]\nmatch = "orders*"\nmode = "descriptor"\n[[rules]]\nmatch = "*"\nmode = "legacy"\n'
    )

    decision = decide("orders-1")

    assert decision.mode is Mode.DESCRIPTOR
    assert [rule.mode for rule in decision.others] == [Mode.LEGACY, Mode.SHADOW]
    assert "rules[0]" in decision.reason
    assert decide("bills").mode is Mode.LEGACY


def test_levels_from_first_to_last(monkeypatch: pytest.MonkeyPatch) -> None:
    configured('mode = "shadow"\n')
    assert decide("orders").mode is Mode.SHADOW
    monkeypatch.setenv("SAGE_COMPAT_MODE", "canary:100")
    assert decide("orders").mode is Mode.CANARY
    monkeypatch.setenv("SAGE_COMPAT_RULES", "bills=legacy; re:ord.*=descriptor")
    assert decide("orders").mode is Mode.DESCRIPTOR
    set_mode("strict", "orders")
    assert decide("orders").mode is Mode.STRICT
    rollback("orders")
    assert decide("orders").mode is Mode.LEGACY
    forget_decisions()
    assert decide("orders").mode is Mode.STRICT


def test_a_table_in_pyproject_is_read_from_folders_below(monkeypatch: pytest.MonkeyPatch) -> None:
    configured('[tool.other]\nx = 1\n[tool.sage-compat]\nmode = "descriptor"\n', "pyproject.toml")
    below = Path.cwd() / "below"
    below.mkdir()
    monkeypatch.chdir(below)

    assert decide("orders").mode is Mode.DESCRIPTOR


def test_a_share_of_the_names_takes_the_new_way_and_stays_on_it() -> None:
    set_mode("canary:30")
    names = [f"queue-{number}" for number in range(1000)]
    chosen = {name for name in names if decide(name).is_new}

    assert 200 < len(chosen) < 400
    assert chosen == {name for name in names if decide(name).is_new}
    set_mode("canary:60")
    assert chosen < {name for name in names if decide(name).is_new}


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ('mode = "descriptors"', "mode", "did you mean 'descriptor'"),
        ('mod = "legacy"', "mod", "did you mean 'mode'"),
        ("mode = 3", "mode", "it must be text"),
        ('[[rules]]\nmatch = "a"', "rules[0]", "needs 'mode'"),
        ('[[rules]]\nmatch = "a"\nmode = "legacy"\npercnt = 3', "rules[0], percnt", "did you mean 'percent'"),
        ('[[rules]]\nmatch = "a"\nmode = "canary"\npercent = 101', "rules[0].percent", "0 to 100"),
        ('[[rules]]\nmatch = "re:("\nmode = "legacy"', "rules[0]", "no regular expression"),
        ("[shadow]\nbudget = 2", "shadow.budget", "at most 1"),
        ("[health]\nautomatic_rollback = 1", "health, automatic_rollback", "true or false"),
        ("mode = ", "sage-compat.toml", "no TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, place: str, said: str) -> None:
    path = configured(text)

    with pytest.raises(ConfigurationError) as caught:
        check()
    assert str(path) in str(caught.value)
    assert place in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("SAGE_COMPAT_MODE", "shadwo", "did you mean 'shadow'"),
        ("SAGE_COMPAT_MODE", "shadow:3", "only canary has a percentage"),
        ("SAGE_COMPAT_RULES", "orders", "no pattern=mode"),
        ("SAGE_COMPAT_CONFIG", "nowhere.toml", "there is no file"),
        ("SAGE_COMPAT_QUIRKS", "pid_name", "did you mean"),
    ],
)
def test_a_wrong_variable_is_told(monkeypatch: pytest.MonkeyPatch, variable: str, text: str, said: str) -> None:
    monkeypatch.setenv(variable, text)

    with pytest.raises(ConfigurationError, match=said) as caught:
        SageQueue("orders")
    assert caught.value.place.startswith(variable)


def test_strict_leaves_what_is_open_alone() -> None:
    queue = SageQueue("orders")
    set_mode("strict")
    with pytest.raises(LegacyCallError):
        SageQueue("orders")

    queue.put(1)
    assert queue.get() == 1


def test_strict_names_the_line_of_the_call_and_the_replacement() -> None:
    set_mode("strict")

    with pytest.raises(LegacyCallError) as caught:
        create_queue("sage", name="orders", maxsize=4096)
    assert "test_rules.py:" in caught.value.place
    assert caught.value.replacement == "sage_qd.SageQueueDescriptor(queue_id='orders', capacity_bytes=4096).open()"
    with pytest.raises(LegacyCallError, match="test_rules"):
        SageQueue("orders")


def test_explain_is_a_document() -> None:
    set_mode("canary:20", "orders*")

    document = explain("orders").as_dict()

    assert document["mode"] == "canary"
    assert document["path"] == ("new" if decide("orders").is_new else "old")
    assert document["rule"]["place"] == "set_mode()"


def test_quirks_come_back_for_a_while() -> None:
    with quirks("pid_in_name"):
        assert f"_{os.getpid()}_" in SageQueue("orders").name
    assert not has_quirk("pid_in_name")
    with pytest.raises(ConfigurationError, match="did you mean 'polling'"), quirks("poling"):
        pass


def test_quirks_do_what_the_old_versions_did() -> None:
    with quirks("lose_large_items", "qsize_per_handle", "polling"):
        queue = SageQueue("orders")
        queue.put(b"x" * 100_000)
        queue.put("small")
        other = SageQueue("orders")
        assert queue.get(timeout=5) == "small"
        assert (queue.qsize(), other.qsize()) == (1, 0)
    with quirks("pickle_doubles_name"):
        assert pickle.loads(pickle.dumps(queue)).name.count("orders") == 1
        assert pickle.loads(pickle.dumps(queue)).name != queue.name


def test_quirks_of_reach() -> None:
    with quirks("not_shared"):
        assert f"_{os.getpid()}_" in SageQueue("orders").name
    with quirks("silent_fallback"), warnings.catch_warnings():
        warnings.simplefilter("error")
        queue = create_queue("ray", name="orders")
    queue.put("between threads")
    with pytest.raises(TypeError):
        pickle.dumps(queue)


WITH_HANDLERS = """
import os, signal, sys, threading, time
from sage_compat import SageQueue

def off_the_main_thread():
    try:
        SageQueue("orders")
    except ValueError as error:
        print(error, flush=True)

thread = threading.Thread(target=off_the_main_thread)
thread.start()
thread.join()
queue = SageQueue("orders")
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


def test_quirk_of_handlers_in_the_constructor() -> None:
    around = os.environ | {"SAGE_COMPAT_QUIRKS": "signal_handlers"}
    ended = subprocess.run(
        [sys.executable, "-c", WITH_HANDLERS], env=around, capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "main thread" in ended.stdout


def test_quirk_of_probing_by_making_a_queue() -> None:
    def made() -> list[str]:
        return [record.full_name for record in records.all_records() if "test_availability" in record.full_name]

    QueueBackendSelector().check_backend_availability(QueueBackendType.SAGE_QUEUE)
    assert made() == []

    with quirks("probing_creates"):
        found = QueueBackendSelector().check_backend_availability(QueueBackendType.SAGE_QUEUE)

    assert found["working"]
    assert len(made()) == 1


def test_a_project_file_that_says_nothing_is_read_once_and_again_when_it_changes() -> None:
    path = configured("[tool.other]\nx = 1\n", "pyproject.toml")
    decide("q")
    before = configuration._parsed_once.cache_info().misses

    decide("q")

    assert configuration._parsed_once.cache_info().misses == before
    path.write_text('[tool.sage-compat]\nmode = "descriptor"\n')
    assert decide("q").mode is Mode.DESCRIPTOR
