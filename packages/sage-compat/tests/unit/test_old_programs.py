"""Old programs, unchanged: old import names here and in children, old tools, old configuration, the command line."""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from sage_compat import SageQueue, hooks, installing, queue_config, queue_diagnostic, queue_tool, sage_queue_manager
from sage_compat.cli.app import VERBS, app, run
from sage_compat.queue_adapter import create_queue, get_queue_backend_info, get_queue_backends, is_sage_queue_available
from sage_compat.queue_auto_fallback import (
    QueueBackendSelector,
    QueueBackendType,
    get_optimal_queue_backend,
    get_queue_backend_info_detailed,
)
from sage_compat.sage_queue_manager import SageQueueManager

OLD_PROGRAM = """
import multiprocessing, sys
from sage.utils.queue_adapter import create_queue
from sage_ext.sage_queue.python.sage_queue import SageQueue
from sage.runtime.communication.queue import LocalQueueDescriptor
import sage.utils.queue as old

def work(name):
    from sage.kernel.enterprise.sage_queue.python.sage_queue import SageQueue as Again
    Again(name).put(("done", type(create_queue(backend="python")).__name__))

if __name__ == "__main__":
    queue = SageQueue("results")
    child = multiprocessing.get_context(sys.argv[1]).Process(target=work, args=("results",))
    child.start()
    print(*queue.get(timeout=60), old.get_queue_backend(), queue.descriptor.queue_type, LocalQueueDescriptor.__module__)
    child.join()
    sys.exit(child.exitcode or 7)
"""


@pytest.fixture
def installed() -> Iterator[None]:
    installing.install()
    yield
    installing.uninstall()


def called(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words), standalone_mode=False, env={"COLUMNS": "200", "NO_COLOR": "1"})
    if result.exception is not None:
        raise result.exception
    return result.return_value or 0, result.output


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("mode", ["legacy", "descriptor"])
def test_an_old_program_runs_unchanged_and_so_do_its_children(tmp_path: Path, method: str, mode: str) -> None:
    program = tmp_path / "old.py"
    program.write_text(OLD_PROGRAM)

    words = ["-m", "sage_compat", "run", "--mode", mode, "--", "python", str(program), method]
    ran = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)

    kind = {"legacy": "legacy_queue", "descriptor": "sage_queue"}[mode]
    assert ran.stdout == f"done QueueWrapper sage_queue {kind} sage_qd.descriptors.local\n", ran.stderr
    assert ran.returncode == 7


@pytest.mark.parametrize("name", sorted(installing.OLD_NAMES))
def test_every_old_name_is_answered(installed: None, name: str) -> None:
    module = importlib.import_module(name)

    assert module.__name__ == name
    for exported in module.__all__:
        assert getattr(module, exported) is getattr(importlib.import_module(installing.OLD_NAMES[name]), exported)
    with pytest.raises(AttributeError, match="answers for it"):
        module.nothing  # noqa: B018


def test_an_installed_package_keeps_its_modules_and_gets_the_missing_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: None
) -> None:
    package = tmp_path / "sage" / "utils"
    package.mkdir(parents=True)
    (tmp_path / "sage" / "__init__.py").write_text("real = True\n")
    (package / "__init__.py").write_text("real = True\n")
    (package / "queue_config.py").write_text("real = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for loaded in [each for each in sys.modules if each == "sage" or each.startswith("sage.")]:
        monkeypatch.delitem(sys.modules, loaded)

    import sage.utils.queue_adapter
    import sage.utils.queue_config

    assert sage.real
    assert sage.utils.queue_config.real
    assert sage.utils.queue_adapter.create_queue is create_queue
    for loaded in [each for each in sys.modules if each == "sage" or each.startswith("sage.")]:
        del sys.modules[loaded]


def test_an_existing_sitecustomize_runs_too(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import builtins; builtins.was_here = True\n")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((installing.STARTUP, str(tmp_path))),
        installing.CHILDREN_VARIABLE: "1",
    }
    program = "import sage_queue; print(was_here, sage_queue.SageQueue.__module__)"

    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)

    assert ran.stdout.split() == ["True", "sage_compat.sage_queue"], ran.stderr


def test_observers_hear_of_each_call_once() -> None:
    heard: list[object] = []
    observer = lambda name, backend, kwargs: heard.append((name, backend, dict(kwargs)))  # noqa: E731
    hooks.observers.append(observer)
    try:
        create_queue("sage", name="a", maxsize=4096)
        create_queue(queue_type="python")
        SageQueue("b")
        SageQueueManager().create_queue("c")
    finally:
        hooks.observers.remove(observer)

    assert heard == [
        ("create_queue", "sage", {"name": "a", "maxsize": 4096}),
        ("create_queue", "python", {"queue_type": "python"}),
        ("SageQueue", None, {"name": "b", "maxsize": 1 << 20}),
        ("SageQueueManager.create_queue", None, {"name": "c", "maxsize": 1 << 20}),
    ]


def test_a_ray_queue_without_ray_is_one_of_this_host_and_says_so() -> None:
    with pytest.warns(UserWarning, match=r"a Ray queue was asked for and Ray is not in"):
        queue = create_queue("ray", maxsize=3)

    assert type(queue) is SageQueue


# -- What old programs ask ---------------------------------------------------------------------------------------------


def test_backends_are_told_without_making_any(compat_folder: Path) -> None:
    info = get_queue_backend_info()
    detailed = get_queue_backend_info_detailed()

    assert {"current_backend", "sage_available", "backends", "capabilities", "extension_status"} == info.keys()
    assert (info["current_backend"], info["extension_status"]) == ("sage_queue", "working")
    assert (
        info["capabilities"].items() >= {"multiprocess": True, "memory_mapped": True, "high_performance": True}.items()
    )
    assert {"environment", "backends", "recommended"} == detailed.keys()
    assert detailed["recommended"] == get_optimal_queue_backend() == "sage_queue"
    assert set(get_queue_backends()) >= {"python_queue", "sage_queue"}
    assert is_sage_queue_available()
    assert not (compat_folder / "queues").exists()


def test_the_selector_chooses_and_falls_back_as_ever() -> None:
    selector = QueueBackendSelector()
    sage, ray, python = QueueBackendType

    assert selector.select_optimal_backend() is sage
    assert selector.select_optimal_backend({"distributed": True}) is python
    assert selector.get_fallback_chain(sage) == [ray, python]
    assert selector.get_fallback_chain(ray) == [sage, python]
    assert selector.get_fallback_chain(python) == []
    assert {"available", "working", "error", "capabilities"} == selector.check_backend_availability(ray).keys()


def test_the_environment_wins_over_every_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = queue_config.QueueConfigManager()
    monkeypatch.setenv("SAGE_QUEUE_MAXSIZE", "77")
    monkeypatch.setenv("SAGE_QUEUE_AUTO_CLEANUP", "no")
    for ending in ("json", "yaml", "yml"):
        path = str(tmp_path / f"config.{ending}")
        manager.save_config(queue_config.QueueConfig(backend="ray_queue", maxsize=5), path)
        found = queue_config.load_queue_config(path)
        assert (found.backend, found.maxsize, found.auto_cleanup) == ("ray_queue", 77, False)
    assert manager.load_config({"timeout": 3}).timeout == 3
    assert manager.get_config().maxsize == 77
    assert queue_config.get_default_config() == queue_config.get_queue_config_from_env()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backend": "x"}, "Invalid backend: x"),
        ({"maxsize": 0}, "maxsize must be positive"),
        ({"timeout": 0}, "timeout must be positive"),
        ({"mmap_path": "/nowhere/at/all"}, "Invalid mmap_path directory"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    manager = queue_config.QueueConfigManager()

    with pytest.raises(ValueError, match=f"Configuration validation failed: {said}"):
        manager.validate_config(manager.load_config(changes))
    with pytest.raises(FileNotFoundError, match="Config file not found"):
        manager.load_config("nowhere.json")
    with pytest.raises(ValueError, match=r"\.yaml, \.yml, or \.json"):
        manager.save_config(queue_config.QueueConfig(), str(tmp_path / "config.ini"))


# -- Old tools ---------------------------------------------------------------------------------------------------------


def test_the_tool_answers_with_its_exit_codes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert queue_tool.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["current_backend"] == "sage_queue"
    assert queue_tool.main(["info"]) == 0
    assert queue_tool.main(["test", "--backend", "sage", "-v"]) == 0
    assert "Backend sage test passed" in capsys.readouterr().out
    assert queue_tool.main(["test", "--backend", "rabbit"]) == 1
    assert queue_tool.main(["benchmark", "--backend", "sage", "--items", "40", "--workers", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["num_items"] == 40
    assert queue_tool.main(["benchmark", "--backend", "rabbit"]) == 1
    assert queue_tool.main(["monitor", "orders", "--interval", "0.01", "--duration", "0.02"]) == 0
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert queue_tool.main(["cleanup"]) == 1
    assert queue_tool.main(["cleanup", "--force"]) == 0
    assert queue_tool.main([]) == 0


@pytest.mark.parametrize(("working", "status", "code"), [(3, "good", 0), (1, "limited", 2), (0, "critical", 1)])
def test_the_diagnosis_says_it_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], working: int, status: str, code: int
) -> None:
    found = queue_diagnostic.check_all_backends()
    for number, each in enumerate(found.values()):
        each["working"] = number < working
    monkeypatch.setattr(queue_diagnostic, "check_all_backends", lambda: found)

    diagnosis = queue_diagnostic.diagnose_queue_backends()

    assert {"overall_status", "recommendations", "errors", "backend_status", "environment"} == diagnosis.keys()
    assert diagnosis["overall_status"] == status
    assert queue_diagnostic.main() == code
    assert status.upper() in capsys.readouterr().out


def test_a_diagnosis_that_breaks_down_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("no machine")

    monkeypatch.setattr(queue_diagnostic, "check_environment", broken)
    assert queue_diagnostic.diagnose_queue_backends()["errors"] == ["Diagnosis failed: no machine"]
    monkeypatch.setattr(queue_diagnostic, "diagnose_queue_backends", broken)
    assert queue_diagnostic.main() == 3


def test_the_manager_keeps_one_object_for_each_name(capsys: pytest.CaptureFixture[str]) -> None:
    manager = SageQueueManager()
    queue = manager.create_queue("orders", 4096)

    assert manager.create_queue("orders") is queue is manager.get_queue("orders")
    for size, error in ((0, ValueError), (-1, ValueError), ("x", TypeError)):
        with pytest.raises(error, match="maxsize"):
            manager.create_queue("others", size)  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        manager.get_queue("nothing")
    manager.cleanup_all()
    with pytest.raises(RuntimeError, match="Queue is closed"):
        queue.put(1)


def test_the_manager_as_a_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_USER", "ann")
    kept = SageQueue("orders", auto_cleanup=False)
    assert sage_queue_manager.main(["list"]) == 0
    assert "in use" in capsys.readouterr().out
    assert sage_queue_manager.main(["test", "orders"]) == 0
    assert sage_queue_manager.main(["cleanup", "--invalid"]) == 0
    assert "0 queues removed" in capsys.readouterr().out
    kept._line.close()
    assert sage_queue_manager.main(["cleanup-user", "bob"]) == 0
    assert "0 queues removed" in capsys.readouterr().out
    assert sage_queue_manager.main(["cleanup-user"]) == 0
    assert f"removed {kept.name}" in capsys.readouterr().out
    SageQueue("orders")
    assert sage_queue_manager.main(["cleanup", "--all", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert sage_queue_manager.main([]) == 1


# -- The command line --------------------------------------------------------------------------------------------------


def test_help_names_every_verb() -> None:
    shown = called("--help")[1]

    assert [verb for verb in VERBS if verb not in shown] == []


def test_the_way_of_a_queue_on_the_command_line(compat_folder: Path) -> None:
    queue = SageQueue("orders")
    queue.put(1)

    assert "legacy_queue" in called("status")[1]
    assert called("roll-forward", "orders", "--dry-run", "--json")[0] == 0
    assert "legacy_queue → sage_queue" in called("roll-forward", "orders")[1]
    assert "roll-forward on this host" in called("explain", "orders")[1]
    document = json.loads(called("status", "--json")[1])
    assert document["queues"][0] | {"kind": "sage_queue", "messages": 1, "mode": "descriptor"} == document["queues"][0]
    assert called("set", "orders", "canary:0")[0] == 0
    assert queue.descriptor.queue_type == "legacy_queue"
    assert json.loads(called("rollback", "--all", "--json")[1])["flips"] == []
    assert called("doctor")[0] == 0


def test_slips_are_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["set", "orders", "descriptors"]) == 2
    assert "did you mean 'descriptor'" in capsys.readouterr().err
    assert run(["rollback"]) == 2
    assert run(["rollback", "re:("]) == 2
    monkeypatch.setenv("SAGE_COMPAT_MODE", "legacies")
    assert run(["explain", "orders"]) == 2
    assert run(["doctor"]) == 1
    assert run(["run", "--", "python", "-c", "pass"]) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_program_that_is_run(tmp_path: Path, number: int) -> None:
    program = tmp_path / "slow.py"
    program.write_text(
        "import signal, sys, time\n"
        "def end(*_):\n    time.sleep(0.6)\n    print('clean end', flush=True)\n    sys.exit(5)\n"
        f"signal.signal({int(number)}, end)\nprint('ready', flush=True)\nsignal.pause()\n"
    )
    words = ["-m", "sage_compat", "run", "--", "python", str(program)]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)

        assert process.stdout.read() == "clean end\n"
        assert process.wait() == 5


def test_a_program_that_is_not_there_is_named() -> None:
    words = ["-m", "sage_compat", "run", "--", "no-such-program"]
    ran = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)

    assert (ran.returncode, ran.stderr) == (4, "sage-compat: No such file or directory: no-such-program\n")
