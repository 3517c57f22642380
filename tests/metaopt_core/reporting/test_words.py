"""The verdict as a sentence, in each form."""

import io

from rich.console import Console

from metaopt_core.reporting import html, terminal
from metaopt_core.reporting.markdown import prose
from metaopt_core.reporting.words import in_short
from tests.summaries import statistics, summary, three_methods


def test_the_verdict_is_a_sentence_in_each() -> None:
    found = in_short(summary(three_methods(), tasks=1000))
    text = "".join(cell.text for cell in found)
    assert text == (
        "After 2 adaptation steps on 5 examples, MAML reaches a mean squared error of 0.333 ± 0.100 over 1,000 new tasks. "
        "2 tasks diverged. The best baseline, pre-trained, reaches 0.583 ± 0.100. Task by task, MAML is better: paired difference "
        "−0.250 ± 0.100."
    )
    assert "MAML is **better**" in prose(found)
    assert '<strong class="good">better</strong>' in html.prose(found)
    console = Console(file=io.StringIO(), width=80)
    terminal.say(console, found)


def test_a_model_that_is_worse_is_called_worse() -> None:
    methods = three_methods()
    methods["maml"]["steps"][2]["loss"] = statistics(9.0)
    assert '<strong class="bad">worse</strong>' in html.prose(in_short(summary(methods)))
    methods["maml"]["steps"][2]["loss"] = statistics(0.6)
    assert "neither better nor worse by more than chance" in html.prose(in_short(summary(methods)))
