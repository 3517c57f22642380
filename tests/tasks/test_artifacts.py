"""What Prefect's pages show: the verdict, the tables, and a link to the report where a server shows it."""

from metaopt_core.spec.pipeline import PipelineSpec
from tasks import artifacts
from tests.summaries import summary, three_methods, variant

SPEC = PipelineSpec.model_validate(
    {
        "name": "waves.v2_a",
        "generate": {"distribution": "sinusoid"},
        "train": {"model": {"name": "mlp"}, "iterations": 6, "shots": 5, "queries": 5},
    }
)


def test_the_page_has_the_verdict_before_the_tables() -> None:
    page = artifacts.results(SPEC, summary(three_methods()), whereabouts="The MLflow run.")
    assert page.startswith("# waves.v2_a\nAfter 2 adaptation steps")
    assert page.index("The MLflow run.") < page.index("## Mean squared error after 2 adaptation steps")
    assert "shifted" not in page


def test_a_report_is_linked_and_shifted_tasks_have_a_table() -> None:
    far = variant(three_methods(), {"x": [5.0, 10.0]})
    page = artifacts.results(SPEC, summary(three_methods(), shifted={"far": far}), report="http://127.0.0.1:5000/report")
    assert page.startswith("# waves.v2_a: [report](http://127.0.0.1:5000/report)\n")
    assert "## Mean squared error on shifted test tasks" in page


def test_keys_have_only_characters_that_prefect_allows() -> None:
    assert artifacts.key(SPEC, "results") == "waves-v2-a-results"
