"""What a user gets who installs the wheel of sage-sim."""

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
