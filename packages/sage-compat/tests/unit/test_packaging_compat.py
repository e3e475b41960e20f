"""What a user gets who installs the wheel of sage-compat."""

from importlib.metadata import distribution, requires, version
from importlib.resources import files

import sage_compat
import sage_qd


def test_versions_are_equal_in_code_and_metadata() -> None:
    assert sage_compat.__version__ == sage_qd.__version__ == version("sage-compat") == version("sage-qd")


def test_metadata_asks_for_exactly_this_version_of_the_queues() -> None:
    assert f"sage-qd=={sage_compat.__version__}" in (requires("sage-compat") or [])


def test_package_is_marked_as_typed() -> None:
    assert files("sage_compat").joinpath("py.typed").is_file()


def test_what_children_of_old_programs_start_with_is_there() -> None:
    assert files("sage_compat").joinpath("startup", "sitecustomize.py").is_file()


def test_metadata_names_licence_and_python() -> None:
    metadata = distribution("sage-compat").metadata

    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
