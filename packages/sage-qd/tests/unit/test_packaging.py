"""What a user gets who installs the wheel: files, metadata, extras."""

import sys
from importlib.metadata import distribution, requires, version
from importlib.resources import files

import pytest

import sage_qd

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the ring needs Linux")


def packed_files() -> set[str]:
    """Files that the wheel put into site-packages, by their path there."""
    packed = distribution("sage-qd").files

    assert packed is not None
    return {file.as_posix() for file in packed}


def is_editable() -> bool:
    """Whether the package was installed from its sources, so that no wheel says what it holds."""
    return "sage_qd/__init__.py" not in packed_files()


needs_wheel = pytest.mark.skipif(is_editable(), reason="installed editable; tox installs the wheel")


def test_version_is_the_one_in_the_metadata() -> None:
    assert sage_qd.__version__ == version("sage-qd")


@needs_wheel
@linux_only
def test_wheel_holds_the_compiled_ring() -> None:
    suffixes = {name.partition(".")[2] for name in packed_files() if name.startswith("sage_qd/ring/_ring.")}

    assert any(suffix.endswith("so") for suffix in suffixes), suffixes


@needs_wheel
@pytest.mark.parametrize("name", ["py.typed", "ring/_ring.pyi", "ring/_ring.pxd", "ring/ring.h", "ring/ring_layout.h"])
def test_wheel_holds_what_other_tools_read(name: str) -> None:
    assert f"sage_qd/{name}" in packed_files()


@needs_wheel
def test_wheel_holds_no_sources_of_the_build() -> None:
    left = {name for name in packed_files() if name.endswith((".pyx", ".c", ".o")) or "/tests/" in name}

    assert left == set()


def test_package_is_marked_as_typed() -> None:
    assert files("sage_qd").joinpath("py.typed").is_file()


def test_metadata_names_licence_python_and_text() -> None:
    metadata = distribution("sage-qd").metadata

    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "# sage-qd" in metadata.get_payload()


def test_extras_are_those_of_kinds_and_of_the_monitor() -> None:
    extras = {"ray", "rpc", "top", "prometheus", "otel"}

    assert set(distribution("sage-qd").metadata.get_all("Provides-Extra")) == extras


@pytest.mark.parametrize(
    ("extra", "library"),
    [
        ("ray", "ray"),
        ("rpc", "pyzmq"),
        ("top", "textual"),
        ("prometheus", "prometheus-client"),
        ("otel", "opentelemetry-sdk"),
    ],
)
def test_extra_installs_its_library(extra: str, library: str) -> None:
    assert any(line.startswith(library) and f'extra == "{extra}"' in line for line in requires("sage-qd") or [])


def test_heavy_libraries_come_with_extras_only() -> None:
    always = [line for line in requires("sage-qd") or [] if "extra ==" not in line]

    assert [line.partition(">")[0] for line in always] == ["click", "msgspec", "rich", "rich-click"]
