"""Stage 3, evaluate: how well each method adapts to the meta-test tasks."""

import json

from prefect import task
from prefect.cache_policies import NO_CACHE
from safetensors.torch import load_file

from metaopt_core import evaluation, plots
from metaopt_core.distributions.materialize import load
from metaopt_core.home import Home
from metaopt_core.learner import Learner
from metaopt_core.spec.models import PipelineSpec
from metaopt_core.stages import Identity
from metaopt_core.store import StageOutput, Store


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate(spec: PipelineSpec, home: Home, identity: Identity, upstream: dict[str, StageOutput]) -> StageOutput:
    """Publish a row a variant, method and task (tasks.parquet), the statistics (summary.json) and figures.

    Not retried: it only computes.
    """
    store = Store(home)
    distribution = load(upstream["generate"] / "")
    maml, pretrained = (load_file(upstream["train"] / f"{name}.safetensors") for name in ("parameters", "pretrained"))
    compared = evaluation.methods(spec, maml, pretrained)
    with store.publish(identity, upstream) as (folder, _):
        table = evaluation.evaluate(spec, distribution, compared)
        table.to_parquet(folder / "tasks.parquet", index=False)
        summary = evaluation.summarize(spec, table)
        (folder / "summary.json").write_text(json.dumps(summary, indent=1))

        plots.save(plots.adaptation(summary), folder / "adaptation.png")
        if summary["shifted"]:
            plots.save(plots.shifted(summary), folder / "shifted.png")
        learner, tasks, steps = Learner.from_spec(spec), evaluation.test_tasks(spec, distribution)[:4], spec.evaluate.steps
        if learner.classification:
            figure = plots.pictures(learner, maml, tasks, steps)
        else:
            figure = plots.fits(learner, compared, tasks, steps)
        plots.save(figure, folder / "examples.png")
    return store.made(identity)
