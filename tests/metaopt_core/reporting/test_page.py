"""The report: one page that needs no other file, with the numbers of the summary."""

import re
from pathlib import Path

from metaopt_core.pipeline.home import Home
from metaopt_core.reporting import page as report
from tests.made_outputs import publish_upstream, sinusoid_spec


def test_the_page_stands_alone_and_says_what_came_of_it(tmp_path: Path) -> None:
    spec = sinusoid_spec("told").model_copy(update={"description": "Waves <& more>"})
    page = report.render(spec, publish_upstream(Home(tmp_path), spec))
    for heading in ("Settings", "What was learned", "How well it adapts", "Where it fails", "What it cost"):
        assert f"<h2>{heading}</h2>" in page
    assert "Waves &lt;&amp; more&gt;" in page
    assert "0.333 ± 0.100" in page  # MAML at the horizon
    assert "−0.250 ± 0.100" in page  # paired with the best baseline
    assert '<strong class="good">better</strong>' in page
    assert page.count("data:image/png;base64,") == 3
    assert not re.findall(r"<script|<link|@import|(?:src|href)=\"(?!data:)", page)
