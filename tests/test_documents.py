"""What the documents claim is true: pitfalls have tests, the README's lines run, versions agree."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import halfstep
from halfstep.cli.main import VERBS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_pitfall_has_a_test() -> None:
    listed = re.findall(
        r"^\| ([A-Z]\d+[a-z]?) \|", (ROOT / "docs" / "pitfalls.md").read_text(encoding="utf-8"), re.M
    )
    assert len(listed) == len(set(listed))
    marks = [
        mark
        for path in (ROOT / "tests").rglob("test_*.py")
        for mark in re.findall(r"^@pytest\.mark\.pitfall\(([^)]*)\)", path.read_text(encoding="utf-8"), re.M)
    ]
    carried = {name for mark in marks for name in re.findall(r'"(\w+)"', mark)}
    assert set(listed) == carried


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.S))
def test_readme_examples_run(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


PAGES = {
    path.name: "\n".join(re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.S))
    for path in sorted((ROOT / "docs").glob("*.md"))
}


@pytest.mark.parametrize("page", [name for name, code in PAGES.items() if code])
def test_examples_of_documents_run(page: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PAGES[page]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_readme_names_what_exists() -> None:
    for script in re.findall(r"\./(scripts/\w+)", README):
        assert (ROOT / script).is_file(), script
    verbs = {verb.name for verb in VERBS}
    assert set(re.findall(r"^ *halfstep ([a-z-]+)", README, re.M)) <= verbs
    for path in re.findall(r"\]\(((?!http)[\w./-]+)\)", README):
        assert (ROOT / path).exists(), path


def test_readme_tree_is_the_source_tree() -> None:
    packages = {path.parent.name for path in (ROOT / "src" / "halfstep").glob("*/__init__.py")}
    tree = README[README.index("src/halfstep/\n") :]
    tree = tree[: tree.index("```")]
    assert packages <= set(re.findall(r"^ +(\w+)/", tree, re.M))


def test_changelog_names_this_version() -> None:
    versions = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert versions[0] == halfstep.__version__


def test_the_step_table_is_that_of_its_result_file() -> None:
    page = (ROOT / "docs" / "optimizer.md").read_text(encoding="utf-8")
    rows = json.loads((ROOT / "benchmarks" / "results" / "step.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) >= 10
    for row in rows:
        ratio = row["ratio"]["AdamW fused"]
        assert re.search(
            rf"^\| {re.escape(row['work'])} \| {row['setting']} \|.*\| {ratio:.2f} \|", page, re.M
        ), row


def test_figures_are_those_of_the_result_files() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "figures.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_result_file_has_a_table_among_the_benchmarks() -> None:
    place = importlib.util.spec_from_file_location("figures", ROOT / "scripts" / "figures.py")
    assert place is not None
    assert place.loader is not None
    figures = importlib.util.module_from_spec(place)
    place.loader.exec_module(figures)
    read, result = [], figures.result

    def noted(path: str) -> Any:
        read.append(path)
        return result(path)

    figures.result = noted
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for block in re.findall(r"<!-- figures: ([\w ]+) -->", page):
        assert figures.BLOCKS[block]().count("\n|") >= 2, block
    found = {path.name for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    assert found - {Path(path).name for path in read} == {"step-sweep.json"}  # drawn: docs/step-sweep.svg
    for path in (ROOT / "benchmarks" / "results").glob("broker-*.md"):
        assert path.name in page


def test_the_readme_says_of_what_run_its_picture_is() -> None:
    """It once showed an older run beside the table of another one."""
    [path] = re.findall(r"!\[[^]]*\]\(([\w./-]+\.png)\)", README)
    with Image.open(ROOT / path) as picture:
        assert f"`{picture.info['command']}`" in README
        assert f'"{picture.info["verdict"]}"' in README


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert {path.name for path in (ROOT / "docs").glob("*.md")} == set(
        re.findall(r": ([\w-]+\.md)$", nav, re.M)
    )
