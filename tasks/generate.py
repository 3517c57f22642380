"""Stage 1, generate: the task distribution, with its held-out tasks, on disk."""

import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from safetensors.numpy import load_file

from metaopt_core.distributions.batch import Episode
from metaopt_core.distributions.materialize import load, materialize
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.stages import Identity
from metaopt_core.pipeline.store import StageOutput, Store
from metaopt_core.reporting import figures as plots
from metaopt_core.spec.models import OmniglotSpec, PipelineSpec


@task(name="generate", cache_policy=NO_CACHE)
def generate(spec: PipelineSpec, home: Home, identity: Identity, upstream: dict[str, StageOutput]) -> StageOutput:
    """Publish the distribution, a table of what is in it, and a figure that shows it.

    Downloads are retried where they happen; nothing else here could go better the second time.
    """
    store = Store(home)
    with store.publish(identity, upstream) as (folder, extra):
        materialize(spec, home.downloads, folder)
        if isinstance(spec.generate, OmniglotSpec):
            pixels = load_file(folder / "pictures.safetensors")["pixels"]
            splits = pd.read_parquet(folder / "splits.parquet")
            plots.save(plots.contact_sheet(pixels, splits), folder / "contact_sheet.png")
            sizes = splits.groupby("split").agg(characters=("character", "size"), alphabets=("alphabet", "nunique"))
            extra["splits"] = sizes.to_dict("index")
            if FlowRunContext.get():
                told = (f"{name} {row.characters} of {row.alphabets} alphabets" for name, row in sizes.iterrows())
                get_run_logger().info("characters: %s", ", ".join(told))
        else:
            tasks = load(folder).held_out("test", Episode(None, spec.generate.support_points, 100))
            plots.save(plots.tasks_of_functions(tasks), folder / "tasks.png")
    return store.made(identity)
