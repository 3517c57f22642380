"""The report over several seeds: a row for each, and the results of all of them together."""

import re
from pathlib import Path

from metaopt_core.evaluation.over_repetitions import summarize
from metaopt_core.reporting.repetitions_page import render
from tests.made_outputs import sinusoid_spec
from tests.summaries import method, statistics, summary, three_methods


def test_it_has_a_row_for_each_seed_with_a_link_to_its_own_report(tmp_path: Path) -> None:
    each = {}
    for seed, loss in (("seed 0", 0.25), ("seed 1", 0.75)):
        methods = three_methods()
        methods["maml"]["steps"][2] |= {"loss": statistics(loss), "diverged": 0}
        each[seed] = summary(methods)
    reports = {name: tmp_path / f"{name.replace(' ', '-')}.html" for name in each}
    spec = sinusoid_spec("waves").model_copy(update={"description": "Waves <& more>"})
    page = render(spec, summarize(list(each.values()), "seed"), each, reports)
    assert "Waves &lt;&amp; more&gt;" in page
    rows = dict(re.findall(r'<td class="left">(seed \d)</td><td>(.*?)</td>', page))
    assert rows == {"seed 0": "0.250 ± 0.100", "seed 1": "0.750 ± 0.100"}
    assert all(path.as_uri() in page for path in reports.values())
    assert "0.500 ± " in page  # the mean over the two
    assert not re.findall(r"<script|<link|@import|src=\"(?!data:)", page)


def test_without_a_baseline_there_is_nothing_to_be_better_than(tmp_path: Path) -> None:
    each = {"seed 0": summary({"maml": method("MAML", [{"loss": statistics(1.0)}] * 2)})}
    page = render(sinusoid_spec("waves"), summarize(list(each.values()), "seed"), each, {"seed 0": tmp_path / "r.html"})
    assert re.search(r"seed 0</td>.*<td>–</td><td>–</td>", page)
