"""Topology files: what they may say, and how everything that is wrong with one is told at once, with its line."""

from pathlib import Path

import pytest

from sage_sim.channels import KINDS
from sage_sim.files import FileError, read_scenario, toml_lines
from sage_sim.scenario import EdgePart, FaultPart, LoadPart, RolePart, Scenario

LOAD_WORDS = ", ".join(LoadPart.model_fields)
NO_INTEGER = "input should be a valid integer, unable to parse string as an integer"

GOOD = """\
name = "orders"
items = 100

[[roles]]
name = "shop"
count = 2

[[roles]]
name = "clerk"

[[edges]]
name = "orders"
source = "shop"
target = "clerk"
kind = "shm_queue"

[load]
mode = "open"
rate = 500
"""
YAML = """\
name: orders
items: 100
roles:
  - {name: shop, count: 2}
  - name: clerk
edges:
  - name: orders
    source: shop
    target: clerk
    kind: shm_queue
load:
  mode: open
  rate: 500
"""


def written(folder: Path, text: str, name: str = "orders.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def mistakes(folder: Path, text: str, name: str = "orders.toml") -> list[str]:
    with pytest.raises(FileError) as caught:
        read_scenario(written(folder, text, name))
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_toml_yaml_json_and_python_say_the_same(tmp_path: Path) -> None:
    from_toml = read_scenario(written(tmp_path, GOOD))
    from_yaml = read_scenario(written(tmp_path, YAML, "orders.yaml"))
    from_json = read_scenario(written(tmp_path, from_toml.model_dump_json(), "orders.json"))
    in_python = Scenario(
        name="orders",
        items=100,
        roles=(RolePart(name="shop", count=2), RolePart(name="clerk")),
        edges=(EdgePart(name="orders", source="shop", target="clerk", kind="shm_queue"),),
        load={"mode": "open", "rate": 500},
    )

    assert from_toml == from_yaml == from_json == in_python


def test_all_mistakes_are_told_at_once_with_line_and_what_was_meant(tmp_path: Path) -> None:
    text = (
        GOOD.replace("count = 2", "cuont = 2").replace('"shm_queue"', '"shm_queu"').replace("rate = 500", "rate = -1")
    )
    text = text.replace('target = "clerk"', 'target = "clark"')

    assert mistakes(tmp_path, text) == [
        "orders.toml:6: roles[0].cuont: unknown word 'cuont' (did you mean 'count'?); known are: name, count, send",
        "orders.toml:14: edges[0].target: there is no role 'clark' (did you mean 'clerk'?)",
        f"orders.toml:15: edges[0].kind: 'shm_queu' is not one of {', '.join(KINDS)} (did you mean 'shm_queue'?)",
        "orders.toml:19: load.rate: input should be greater than 0, not -1",
    ]


def test_mistakes_in_yaml_have_their_lines_too(tmp_path: Path) -> None:
    text = YAML.replace("count: 2", "count: many").replace("mode: open", "mod: open")

    assert mistakes(tmp_path, text, "orders.yaml") == [
        f"orders.yaml:4: roles[0].count: {NO_INTEGER}, not 'many'",
        f"orders.yaml:12: load.mod: unknown word 'mod' (did you mean 'mode'?); known are: {LOAD_WORDS}",
    ]


def on_ray(more: str) -> tuple[str, str]:
    """The change that makes it a queue of Ray, with more lines after that."""
    return 'kind = "shm_queue"', f'kind = "ray_queue"\nmax_items = 8\n{more}'


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('name = "orders"\nitems', "items"), "orders.toml: name: is missing"),
        (('source = "shop"\ntarget = "clerk"', 'source = "clerk"\ntarget = "shop"'), "runs against the order"),
        (("[load]", '[[roles]]\nname = "idle"\n[load]'), "orders.toml:17: roles[2]: role 'idle' has no edge"),
        (("[load]", "settings = { codec = 1 }\n[load]"), "edges[0].settings: codec must be text, not 1"),
        (("[load]", "settings = { checksum = true }\n[load]"), "checksum"),
        (("[load]", '[[faults]]\nkind = "kill"\ntarget = "shopp"\n[load]'), "faults[0]: 'kill' shall hit 'shopp'"),
        (("[load]", '[[faults]]\nkind = "cut"\n[load]'), "needs an edge of the kind rpc_queue"),
        (("[load]", '[[faults]]\nkind = "kill"\nrate = 1\nat = 1\n[load]'), "either a rate or a moment"),
        (("[load]", '[[faults]]\nkind = "kill-node"\nat = 1\n[load]'), "needs an edge of the kind ray_queue"),
        (on_ray('[[faults]]\nkind = "kill-node"\nat = 1'), "faults[0]: 'kill-node' needs two nodes of a Ray cluster"),
        (
            on_ray('[ray]\nnodes = 2\n[[faults]]\nkind = "kill-node"\nat = 1\ntarget = "node-0"'),
            "'kill-node' hits node-1, not 'node-0'",
        ),
        (on_ray('[[faults]]\nkind = "kill-actor"'), "'kill-actor' needs a moment where a queue is not durable"),
        (on_ray("node = 1"), "edges[0].node: there is no node-1: nodes = 2 under [ray] would start it"),
        (on_ray('settings = {node_id = "ab"}\n[ray]'), "node_id names a node of another cluster"),
        (("[load]", "node = 1\n[load]"), "edges[0].node: the kind shm_queue has no home on a node of Ray"),
        (
            ("[load]", '[payload]\ndistribution = "uniform"\nlow_bytes = 100\n[load]'),
            "low_bytes 100 is above size_bytes 64",
        ),
        (("rate = 500", 'shape = "trace"'), "shape 'trace' needs trace"),
        (("rate = 500", 'shape = "trace"\ntrace = [1, 0.5]'), "the moments of trace must be in order"),
        (("items = 100", 'workload = "word-count"'), "word-count needs roles that turn lines into words"),
        (("items = 100", 'runs_as = "job"'), "a job needs the workload word-count, and three roles in a row"),
        (("items = 100", 'text = "x.txt"'), "counts no text"),
        (('name = "orders"\nitems', "name = \nitems"), "orders.toml:1: this is no TOML"),
    ],
)
def test_each_mistake_is_told(change: tuple[str, str], told: str, tmp_path: Path) -> None:
    text = GOOD.replace(*change)

    assert text != GOOD
    assert told in "\n".join(mistakes(tmp_path, text))


def test_yaml_that_cannot_be_read_has_its_line(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "name: [\n", "a.yaml")[0].startswith("a.yaml:2: this is no YAML")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "a: &a [*a]\n"),
        ("a.yaml", "a: " + "[" * 3000 + "]" * 3000),
        ("a.json", "[" * 100_000 + "]" * 100_000),
        ("a.toml", "a = " + "[" * 3000 + "]" * 3000),
    ],
    ids=["itself", "yaml", "json", "toml"],
)
def test_parts_that_are_nested_too_deeply_are_a_mistake(name: str, text: str, tmp_path: Path) -> None:
    assert mistakes(tmp_path, text, name) == [f"{name}: parts are nested too deeply, or hold themselves"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (("rate = 500", 'shape = "trace"\ntrace = [0, inf]'), "load.trace[1]"),
        (("rate = 500", "rate = nan"), "load.rate"),
        (("[load]", '[[faults]]\nkind = "kill"\nat = inf\n[load]'), "faults[0].at"),
        (("items = 100", "duration_seconds = inf"), "duration_seconds"),
    ],
)
def test_numbers_are_finite(change: tuple[str, str], place: str, tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, GOOD.replace(*change))

    assert f" {place}: input should be a finite number" in told


def test_a_number_of_json_that_is_too_large_is_not_finite(tmp_path: Path) -> None:
    made = read_scenario(written(tmp_path, GOOD)).model_dump_json().replace('"trace":[]', '"trace":[0,1e400]')

    assert mistakes(tmp_path, made, "a.json")[0].startswith("a.json: load.trace[1]: input should be a finite number")


def test_lines_of_toml_are_found() -> None:
    lines = toml_lines('a = 1\n[b.c]\nd = """\nx = 2\n"""\n[[e]]\nf = 1\n[[e]]\n"f" = 2\n[e.g]\nh.i = 3\n')

    assert lines["a",] == 1
    assert lines["b", "c", "d"] == 3
    assert (lines["e", 0, "f"], lines["e", 1, "f"], lines["e", 1, "g", "h", "i"]) == (7, 9, 11)


def test_a_fault_of_a_file_is_that_of_the_command_line() -> None:
    assert str(FaultPart(kind="stop", at=1.0, target="shop").fault()) == "stop@1=shop"


def test_a_fault_of_an_unknown_kind_is_one_mistake(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, GOOD + '[[faults]]\nkind = "kil"\n')

    assert told.startswith("orders.toml:21: faults[0].kind: 'kil' is not one of kill, kill-inside, stop")
    assert told.endswith("kill-actor (did you mean 'kill'?)")
