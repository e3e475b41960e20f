"""
The version of the three packages: say it, or set it everywhere.

    python packages/version.py            print it; ends with 1 when the places do not agree
    python packages/version.py 0.2.0      write it to every place

It is ``__version__`` in ``sage_qd/__init__.py``; the metadata of the packages, and what they ask of each other, repeat
it.
"""

import re
import sys
from pathlib import Path

PACKAGES = Path(__file__).resolve().parent
SOURCE = PACKAGES / "sage-qd" / "src" / "sage_qd" / "__init__.py"
VERSION = r"(?P<version>[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?(?:\.dev[0-9]+)?)"
PLACES = {
    SOURCE: rf'(?P<before>^__version__ = "){VERSION}(?=")',
    **{
        PACKAGES / name / "pyproject.toml": rf'(?P<before>^version = "|"sage-[a-z]+(?:\[[a-z,]+\])?==){VERSION}(?=")'
        for name in ("sage-qd", "sage-compat", "sage-sim")
    },
}
"""Files, and what stands before a version in them."""


def found() -> dict[str, list[str]]:
    """Every version that is written somewhere, with the places."""
    versions: dict[str, list[str]] = {}
    for path, pattern in PLACES.items():
        for match in re.finditer(pattern, path.read_text(), re.MULTILINE):
            line = path.read_text()[: match.start()].count("\n") + 1
            versions.setdefault(match["version"], []).append(f"{path.relative_to(PACKAGES)}:{line}")
    return versions


def write(version: str) -> None:
    """Set it everywhere."""
    if not re.fullmatch(VERSION, version):
        sys.exit(f"{version!r} is no version; write one like 0.2.0 or 1.0.0rc1")
    for path, pattern in PLACES.items():
        path.write_text(re.sub(pattern, rf"\g<before>{version}", path.read_text(), flags=re.MULTILINE))


def main() -> int:
    """Print or set."""
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    if len(sys.argv) == 2:
        write(sys.argv[1])
    versions = found()
    if len(versions) != 1:
        for version, places in versions.items():
            print(f"{version}: {', '.join(places)}", file=sys.stderr)
        return 1
    print(*versions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
