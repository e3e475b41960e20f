"""What a user gets who installs the wheel of sage-sim."""

import subprocess
import sys
from importlib.metadata import distribution, requires, version
from importlib.resources import files

import sage_qd
import sage_sim


def test_versions_are_equal_in_code_and_metadata() -> None:
    assert sage_sim.__version__ == sage_qd.__version__ == version("sage-sim") == version("sage-qd")


def test_metadata_asks_for_exactly_this_version_of_the_queues() -> None:
    assert f"sage-qd=={sage_sim.__version__}" in (requires("sage-sim") or [])


def test_package_is_marked_as_typed() -> None:
    assert files("sage_sim").joinpath("py.typed").is_file()


def test_metadata_names_licence_and_python() -> None:
    metadata = distribution("sage-sim").metadata

    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"


def test_command_is_installed() -> None:
    (command,) = distribution("sage-sim").entry_points.select(group="console_scripts")

    assert (command.name, command.value) == ("sage-sim", "sage_sim.cli:main")


def test_nothing_but_its_own_dependencies_is_needed_to_begin() -> None:
    optional = ("zmq", "ray", "numpy", "yaml", "faster_fifo", "simpy", "textual")
    code = f"import sys; sys.modules |= dict.fromkeys({optional}); import sage_sim.cli, sage_sim.nursery, sage_sim.host"

    subprocess.run([sys.executable, "-c", code], check=True)
