"""The book is true: what comments, docstrings and documents name exists, and every link leads somewhere."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent
DESIGN = HERE / "docs" / "design"
SKIPPED = {".git", ".venv", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}

PAPERS = [*sorted((HERE / "docs").rglob("*.md")), *sorted(HERE.glob("*.md"))]
SOURCES = [path for top in ("zotctl", "tests", "benchmarks") for path in sorted((HERE / top).rglob("*.py"))]

LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
ANCHOR = re.compile(r'<a id="([^"]+)">')
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
FILE = re.compile(r"(?<![\w/.<>{}*-])((?:\w[\w.-]*/)+[\w.-]+\.(?:py|txt|toml))(?:::(\w+))?(?![\w/*{<])")
PAPER = re.compile(r"(?<![\w/.:-])((?:[\w.-]+/)*[\w-]+\.md)(?:#([\w-]+))?\b")
MODULE = re.compile(r"[`(](?:zotctl\.)?((?:storage|jobs)(?:\.[a-z]\w*)+)")
STEP = re.compile(r"\b(I\d+|C[1-9]|P[1-9]|M[1-9]|LP)\b")
_PAPERS = "annotations config considerations descriptor image-index image-layout layer manifest media-types spec"
OCI = {f"{paper}.md" for paper in [*_PAPERS.split(), "extensions/_oci"]}
"""Papers of the specifications, which are no files of ours."""
STORES_AND_JOBS = {("zotctl", "storage"), ("zotctl", "jobs")}
MOST_WORDS = 40

INVARIANTS = [f"i{number}" for number in range(1, 16)]
STEPS = ["lp", *(f"p{n}" for n in range(1, 4)), *(f"m{n}" for n in range(1, 5)), *(f"c{n}" for n in range(1, 8))]


def name(path: Path) -> str:
    return str(path.relative_to(HERE))


@cache
def anchors(path: Path) -> set[str]:
    """Of a paper: those that GitHub makes of headings, and our own."""
    text = path.read_text()
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in HEADING.findall(text)}
    return slugs | set(ANCHOR.findall(text))


@cache
def files() -> set[str]:
    found = (path.relative_to(HERE) for path in HERE.rglob("*") if path.is_file())
    return {str(path) for path in found if not SKIPPED & set(path.parts)}


@cache
def ends() -> set[str]:
    """Every file by all of its ends: `storage/keys.py` is a name of `zotctl/storage/keys.py`."""
    return {"/".join(parts[at:]) for parts in (file.split("/") for file in files()) for at in range(len(parts))}


def remarks(path: Path) -> Iterator[str]:
    """Comments and docstrings, those of attributes too."""
    text = path.read_text()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def unknown_files(text: str) -> Iterator[str]:
    for file, test in FILE.findall(text):
        if file not in ends():
            yield file
        elif test:
            found = [path for path in SOURCES if name(path).endswith(file)]
            if not any(re.search(rf"^\s*(?:async )?def {test}\b|^class {test}\b", p.read_text(), re.M) for p in found):
                yield f"{file}::{test}"


def unknown_papers(text: str) -> Iterator[str]:
    """A paper is named by its path from the top of the repository."""
    for found in PAPER.finditer(text):
        path = HERE / found[1]
        if found[1] in OCI:
            continue
        if not path.is_file():
            yield found[1]
        elif found[2] and found[2] not in anchors(path):
            yield found[0]


def unknown_modules(text: str) -> Iterator[str]:
    """Modules by their dots, and what stands in one."""
    for dotted in MODULE.findall(text):
        place, rest = HERE / "zotctl", dotted.split(".")
        while rest and (place / rest[0]).is_dir():
            place /= rest.pop(0)
        if rest:
            file = place / f"{rest.pop(0)}.py"
            if not file.is_file() or not all(re.search(rf"\b{word}\b", file.read_text()) for word in rest):
                yield dotted


@pytest.mark.parametrize("path", PAPERS, ids=name)
def test_links_of_a_paper_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text()):
        if "://" in link or link.startswith("mailto:"):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("path", PAPERS, ids=name)
def test_files_and_tests_that_a_paper_names_exist(path: Path) -> None:
    assert list(unknown_files(path.read_text())) == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_what_code_names_in_remarks_exists(path: Path) -> None:
    for text in remarks(path):
        assert list(unknown_files(text)) == []
        assert list(unknown_papers(text)) == []
        # In config/, http/ and cli/ these are keys of the configuration.
        if path.relative_to(HERE).parts[:2] in STORES_AND_JOBS or path.is_relative_to(HERE / "tests" / "simulation"):
            assert list(unknown_modules(text)) == []


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(HERE / "zotctl")], ids=name)
def test_every_invariant_and_step_that_code_names_has_a_heading(path: Path) -> None:
    named = {step.lower() for text in remarks(path) for step in STEP.findall(text)}
    assert named <= {*INVARIANTS, *STEPS}


def test_every_invariant_and_step_has_one_heading() -> None:
    assert list(ANCHOR.findall((DESIGN / "invariants.md").read_text())) == INVARIANTS
    steps = [*ANCHOR.findall((DESIGN / "local.md").read_text()), *ANCHOR.findall((DESIGN / "bucket.md").read_text())]
    assert steps == STEPS
    for paper in ("invariants.md", "local.md", "bucket.md"):
        text = (DESIGN / paper).read_text()
        assert all(f'<a id="{a}"></a>\n\n### {a.upper()}: ' in text for a in ANCHOR.findall(text))


def test_the_map_names_what_is_there() -> None:
    """Of the drawing in ARCHITECTURE.md: each line begins with a file or directory, and may name more after a `;`."""
    (drawing,) = re.findall(
        r"^```\nzotctl/\n(.*?)^```", (HERE / "ARCHITECTURE.md").read_text(), re.DOTALL | re.MULTILINE
    )
    above = {0: HERE / "zotctl"}
    for line in drawing.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        entry, rest = line.split(maxsplit=1)
        place = above[depth - 1] / entry
        above[depth] = place
        assert place.is_dir() if entry.endswith("/") else place.is_file(), line
        folder = place if entry.endswith("/") else place.parent
        assert [file for file in re.findall(r"\b\w+\.py\b", rest) if not (folder / file).is_file()] == [], line


def test_invariants_that_tests_are_named_for_exist() -> None:
    named = {found for path in SOURCES for found in re.findall(r"def test_(i\d+)_", path.read_text())}
    assert named <= set(INVARIANTS)


def test_the_glossary_is_short() -> None:
    rows = [row for row in (DESIGN / "glossary.md").read_text().splitlines() if row.startswith("| ")][1:]
    words = [word for row in rows for word in row.split("|")[1].split(",")]
    assert len(words) == len(set(words)) <= MOST_WORDS
    assert rows == sorted(rows, key=str.lower)


def test_a_remark_that_leads_nowhere_is_found() -> None:
    """The net holds: else the tests above say nothing."""
    assert list(unknown_papers("by the steps of s3.md 5, and docs/design/bucket.md#c9")) == [
        "s3.md",
        "docs/design/bucket.md#c9",
    ]
    assert list(unknown_papers("docs/design/bucket.md#c4 and image-spec, image-layout.md")) == []
    assert list(unknown_modules("`storage.keys`, (storage.bucket.index), `storage.s3.names`, `jobs.nothing`")) == [
        "storage.s3.names",
        "jobs.nothing",
    ]
    assert list(unknown_files("storage/keys.py, storage/nothing.py, tests/test_book.py::test_nothing")) == [
        "storage/nothing.py",
        "tests/test_book.py::test_nothing",
    ]
