"""The page about the report says of every row what the code says of it."""

from pathlib import Path

from halfstep.backtest.definitions import DEFINITIONS, GROUPS, Definition

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "report.md").read_text(encoding="utf-8")


def line(d: Definition) -> str:
    label = d.label + (" (…)" if d.second else "")
    cells = [cell.replace("|", "\\|") for cell in (label, d.meaning, d.absent)]
    return f"| `{d.key}` | {' | '.join(cells)} |"


def test_the_page_lists_every_row_as_the_code_defines_it() -> None:
    rows = PAGE[PAGE.index("<!-- rows") :]
    expected = [line(d) for group in GROUPS.values() for d in group]
    assert [found for found in rows.splitlines() if found.startswith("| `")] == expected
    assert [found[4:] for found in rows.splitlines() if found.startswith("### ")] == list(GROUPS)


def test_every_definition_is_a_sentence() -> None:
    for d in DEFINITIONS.values():
        assert d.meaning, d.key
        assert d.label, d.key
