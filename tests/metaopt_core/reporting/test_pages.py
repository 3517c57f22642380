"""The reports over repetitions and over a sweep: each one page that needs no other file."""

import re
from pathlib import Path
from typing import Any

from metaopt_core.evaluation.over_repetitions import summarize
from metaopt_core.reporting import repetitions_page, sweep_page
from metaopt_core.spec.pipeline import PipelineSpec
from tests.made_outputs import sinusoid_spec
from tests.summaries import LOSS, statistics, summary, three_methods, variant


def _stands_alone(page: str) -> bool:
    return not re.findall(r"<script|<link|@import|src=\"(?!data:)|href=\"(?!file:)", page)


def test_the_page_over_seeds_has_each_of_them_and_what_they_come_to(tmp_path: Path) -> None:
    each: dict[str, dict[str, Any]] = {}
    for seed, mean in enumerate((0.3, 0.5)):
        methods = three_methods()
        methods["maml"]["steps"][2]["loss"] = statistics(mean)
        far = variant(three_methods(), {"x": [5.0, 10.0]})
        each[f"seed {seed}"] = summary(methods, shifted={"far": far})
    for made in each.values():
        for part in (made, made["shifted"]["far"]):
            for pair in part["differences"]:
                pair["loss"]["p"] = 0.01
    merged = summarize(list(each.values()), "seed")
    spec = sinusoid_spec("waves").model_copy(update={"description": "<b>bold</b>"})
    page = repetitions_page.render(spec, merged, each, {which: tmp_path / f"{which}.html" for which in each})
    assert _stands_alone(page)
    assert "&lt;b&gt;bold" in page
    assert "over 4 new tasks and 2 seeds" in page
    assert "0.400 ± 1.271" in page  # Student's t of two values
    assert "Seed by seed" in page
    assert all(text in page for text in ("0.300 ± 0.100", "0.500 ± 0.100", "Report of seed 1", "over 2 seeds (Student"))
    assert page.count("data:image/png") == 2


SWEEP = {"parameters": {"train.inner.lr": {"low": 0.003, "high": 0.1, "log": True}}, "trials": 3, "trial": {"train.iterations": 3}}


def _result(mean: float) -> dict[str, Any]:
    def trial(number: int, value: float | None, lr: float) -> dict[str, Any]:
        return {"number": number, "value": value, "pruned": value is None, "values": {"train.inner.lr": lr}, "seconds": 3.0}

    return {
        "trials": 3,
        "pruned": 1,
        "metric": "loss",
        "metrics": {"loss": LOSS},
        "best": {"trial": 2, "values": {"train.inner.lr": 0.02}, "steps": 5, "test": statistics(0.5)},
        "default": {"values": {"train.inner.lr": 0.01}, "steps": 5, "test": statistics(0.7)},
        "difference": {"mean": mean, "ci95": 0.1, "p": 0.001 if abs(mean) > 0.1 else 0.4},
        "history": [trial(0, 0.9, 0.01), trial(1, None, 0.1), trial(2, 0.6, 0.02)],
    }


def test_the_page_over_a_sweep_says_what_the_search_is_worth(tmp_path: Path) -> None:
    spec = PipelineSpec.model_validate(sinusoid_spec("waves").model_dump() | {"sweep": SWEEP})
    page = sweep_page.render(spec, _result(-0.2), spec, {"waves-best": tmp_path / "report.html"}, tmp_path)
    assert _stands_alone(page)
    assert 'the best setting is <strong class="good">better</strong>: −0.200 ± 0.100' in page
    assert "low: 0.003, high: 0.1, log: true" in page
    order = re.findall(r"<td>(0\.6|0\.9|pruned)</td>", page)
    assert order == ["0.6", "0.9", "pruned"]
    unclear = sweep_page.render(spec, _result(0.05), spec, {}, tmp_path)
    assert "no larger than chance can make it" in unclear
    worse = sweep_page.render(spec, _result(0.2), spec, {}, tmp_path)
    assert '<strong class="bad">worse</strong>' in worse
