"""The recipe of ActiveGuard: a smoke run measures every figure, and gates tell good rows from bad ones."""

from __future__ import annotations

from typing import Any

import pytest

from modelward.core.errors import UsageError
from modelward.evaluation.rows import rate
from modelward.evaluation.store import Store
from modelward.reproduce.activeguard import activeguard
from modelward.reproduce.activeguard_tables import gates, tables
from modelward.reproduce.tables import markdown


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return activeguard(profile="smoke", seed=0, store=Store(), jobs=1, command="modelward reproduce activeguard --profile smoke")


@pytest.mark.slow
def test_a_smoke_run_measures_every_figure(found: dict[str, Any]) -> None:
    assert all(body for _, _, body in found["tables"])
    assert "not evidence" in found["paragraphs"][0]
    assert {row["configuration"] for row in found["rows"]} == {"paper", "hardened"}
    assert all(row["profile"] == "smoke" and row["n"] > 0 for row in found["rows"])
    by_figure = {line[1]: line[-1] for line in gates(found["rows"])}
    for figure in ("users crafted", "users identified after PNG", "users taken for another", "forgers past the whole gate",
                   "users past the whole gate", "authorised logits, bit for bit", "revoked users refused"):  # fmt: skip
        assert by_figure[figure] == "yes", figure
    assert found["tables"] == tables(found["rows"])
    page = markdown({**found, "environment": {}, "command": "x", "seconds": 1, "created": "now"})
    assert "stripped, bound" in page
    assert "null_bit_errors" in page
    with pytest.raises(UsageError, match="profile is smoke, quick, full"):
        activeguard(profile="tiny", seed=0, store=Store(), jobs=1, command="")


def rows_of(bad: int) -> list[dict[str, Any]]:
    """Return rows of which so many of a hundred are not as they should be."""
    made = [
        *(rate(name, 100 - bad, 100, attack="x") for name in ("crafted", "identified", "gate_admits", "bit_identical", "revoked_refused")),
        rate("misattributed", bad, 100), rate("accepted", bad, 10_000, attack="clean", budget="m 4"), rate("full_gate", bad, 100, attack="all"),
        rate("original", 90, 100, extra={"classes": 10}), rate("unauthorised", 12 + bad, 100, attack="random"),
        rate("stripped", 12 + bad, 100, attack="bound"), rate("bit_errors", bad, 100, attack="saved and loaded"),
    ]  # fmt: skip
    return [{**row.as_json(), "configuration": "hardened", "arch": "lenet5", "scene": 0} for row in made]


def test_gates_are_met_by_good_rows_alone() -> None:
    assert {line[-1] for line in gates(rows_of(0))} == {"yes"}
    assert {line[-1] for line in gates(rows_of(11))} == {"**no**"}
    one_bad = [*rows_of(0), *({**row, "scene": 1} for row in rows_of(11))]
    assert {line[-1] for line in gates(one_bad)} == {"**no**"}  # the worst seed decides
    silent = [row for row in rows_of(0) if row["metric"] != "full_gate"]
    assert [line[1] for line in gates(silent) if line[-1] != "yes"] == ["forgers past the whole gate"]
