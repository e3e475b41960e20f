"""docs/reference/segment-layout.md says what ring_layout.h says; the compiler is asked."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2]
RING = PACKAGE / "src" / "sage_qd" / "ring"
HEADER = (RING / "ring_layout.h").read_text()
PAGE = (PACKAGE.parents[1] / "docs" / "reference" / "segment-layout.md").read_text()

SECTION = re.compile(r"^## [^\n]*?`(\w+)`\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
FIELD_ROW = re.compile(r"^\| (\d+) \| (\d+) \| `(\w+)` \|", re.MULTILINE)
CONSTANT_ROW = re.compile(r"^\| `(SQ_\w+)` \| (\w+) \|", re.MULTILINE)
BITS_ROW = re.compile(r"^\| (\w+) \| (\d+)-(\d+) \| (\w+) \|", re.MULTILINE)
STRUCT = re.compile(r"^typedef struct \{\n(.*?)^\} (\w+);", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
MEMBER = re.compile(r"(\w+)(?:\[\w+\])?;")
CONSTANT = re.compile(r"^#define (SQ_\w+) ", re.MULTILINE)

# How to make each packed word with one part all ones and the others zero.
PACKED = {
    "position": {"units": "sq_position(~0u, 0)", "items": "sq_position(0, ~0u)"},
    "geometry": {
        "generation": "sq_geometry(0, 0, ~0u)",
        "log2_units": "sq_geometry(0, ~0u, 0)",
        "offset_pages": "sq_geometry((1ull << 40) - 1, 0, 0)",
    },
    "lease": {
        "phase": "(uint64_t)SQ_LEASE(0xff, 0, 0)",
        "attempt": "(uint64_t)SQ_LEASE(0, 0xff, 0)",
        "slot": "(uint64_t)SQ_LEASE(0, 0, 0xffff)",
    },
}


def members(body: str) -> list[str]:
    """Names of the members of a struct, in order."""
    return MEMBER.findall(COMMENT.sub("", body))


STRUCTS = {name: members(body) for body, name in STRUCT.findall(HEADER)}
TABLES = {
    struct: [(field, int(offset), int(size)) for offset, size, field in FIELD_ROW.findall(body)]
    for struct, body in SECTION.findall(PAGE)
}
CONSTANTS = {name: int(value, 0) for name, value in CONSTANT_ROW.findall(PAGE)}
PACKED_PARTS = {(word, part): (int(low), int(high)) for word, low, high, part in BITS_ROW.findall(PAGE)}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What the compiler makes of the header: offset and size of each member, constants, and packed parts."""
    asked = {f"constant {name}": name for name in CONSTANTS}
    for struct, fields in STRUCTS.items():
        for field in fields:
            asked[f"offset {struct}.{field}"] = f"offsetof({struct}, {field})"
            asked[f"size {struct}.{field}"] = f"sizeof((({struct} *)0)->{field})"
    for word, parts in PACKED.items():
        for part, expression in parts.items():
            asked[f"mask {word}.{part}"] = expression
    lines = [f'    printf("{name}=%llu\\n", (unsigned long long)({what}));' for name, what in asked.items()]
    folder = tmp_path_factory.mktemp("layout")
    source, program = folder / "layout.c", folder / "layout"
    source.write_text('#include <stdio.h>\n#include "ring_layout.h"\nint main(void) {\n' + "\n".join(lines) + "\n}\n")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    subprocess.run([*compiler, "-std=gnu11", f"-I{RING}", str(source), "-o", str(program)], check=True)
    answer = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, _, value in (line.rpartition("=") for line in answer.splitlines())}


def test_page_and_header_name_the_same_structs() -> None:
    assert set(TABLES) == set(STRUCTS)


@pytest.mark.parametrize("struct", sorted(STRUCTS))
def test_table_lists_each_member_in_order(struct: str) -> None:
    assert [field for field, _, _ in TABLES[struct]] == STRUCTS[struct]


@pytest.mark.parametrize(
    ("struct", "field", "offset", "size"), [(struct, *row) for struct, rows in TABLES.items() for row in rows]
)
def test_row_has_offset_and_size_of_the_header(
    compiled: dict[str, int], struct: str, field: str, offset: int, size: int
) -> None:
    assert (offset, size) == (compiled[f"offset {struct}.{field}"], compiled[f"size {struct}.{field}"])


def test_page_lists_each_constant_of_the_header() -> None:
    assert set(CONSTANTS) == set(CONSTANT.findall(HEADER))


@pytest.mark.parametrize("name", sorted(CONSTANTS))
def test_constant_has_the_value_of_the_header(compiled: dict[str, int], name: str) -> None:
    assert CONSTANTS[name] == compiled[f"constant {name}"]


def test_page_lists_each_part_of_a_packed_word() -> None:
    assert set(PACKED_PARTS) == {(word, part) for word, parts in PACKED.items() for part in parts}


@pytest.mark.parametrize(("word", "part"), sorted(PACKED_PARTS))
def test_packed_part_has_the_bits_of_the_header(compiled: dict[str, int], word: str, part: str) -> None:
    low, high = PACKED_PARTS[word, part]

    assert compiled[f"mask {word}.{part}"] == (1 << (high + 1)) - (1 << low)


def test_page_names_the_layout_version_in_its_first_sentence(compiled: dict[str, int]) -> None:
    assert f"\nLayout version **{compiled['constant SQ_LAYOUT_VERSION']}**." in PAGE


def test_build_has_the_layout_version_of_the_page() -> None:
    from sage_qd.ring import LAYOUT_VERSION

    assert CONSTANTS["SQ_LAYOUT_VERSION"] == LAYOUT_VERSION
