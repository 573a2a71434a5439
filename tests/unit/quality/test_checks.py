from __future__ import annotations

from pathlib import Path

from include.quality.checks import CHECKS

DOCUMENT = Path(__file__).parents[3] / "docs" / "marts.md"


def test_every_rule_is_documented_in_its_own_words() -> None:
    text = DOCUMENT.read_text()
    for check in CHECKS:
        assert f"| `{check.name}` | {check.rule} |" in text


def test_names_of_rules_are_unique() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
