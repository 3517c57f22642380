"""`metaopt runs` and `metaopt compare`: past runs, from the store, without PyTorch."""

from collections.abc import Sequence

from flows import console
from flows.planning import suggestion
from metaopt_core.errors import UserError
from metaopt_core.pipeline.history import Past, differing, named, past
from metaopt_core.pipeline.home import Home
from metaopt_core.reporting import past_runs, terminal


def show(home: Home, pipeline: str | None, as_json: bool) -> None:
    """List the runs of a home, or those of one pipeline. Raises UserError if it has none."""
    there, unreadable = _readable(home)
    if pipeline is not None:
        known = sorted({one.pipeline for one in there})
        there = [one for one in there if one.pipeline == pipeline]
        if not there:
            raise UserError(f"{home.root}: no run of {pipeline}{suggestion(pipeline, known)}; `metaopt run {pipeline}` makes one")
    if as_json:
        console.print_json(past_runs.as_json(there))
    elif there:
        from flows.report import console as wide

        terminal.show(wide(), past_runs.listed(there))
    else:
        console.say(f"{home.root}: no runs yet")
    if unreadable:
        console.say(f"{unreadable} of another version of metaopt are left out: their results are written in another form")


def compare(home: Home, chosen: Sequence[str], as_json: bool) -> None:
    if len(chosen) < 2:
        raise UserError("metaopt compare: expected two runs or more, by their ids or by the names of pipelines")
    there, _ = _readable(home)
    runs = [named(there, name) for name in chosen]
    if len({one.fingerprint for one in runs}) < len(runs):
        raise UserError(f"{' and '.join(chosen)} are one and the same run; `metaopt runs` lists all")
    if as_json:
        found = [None, *past_runs.differences(runs)]
        entries = [one | {"minus_first": of} for one, of in zip(past_runs.as_json(runs), found, strict=True)]
        console.print_json({"runs": entries, "differing": differing(runs)})
        return
    from flows.report import console as wide

    terminal.show(wide(), past_runs.settings(runs))
    terminal.show(wide(), past_runs.results(runs))


def _readable(home: Home) -> tuple[list[Past], int]:
    """The runs whose results can be read, and the number of the others."""
    there = past(home)
    readable = [one for one in there if past_runs.readable(one)]
    return readable, len(there) - len(readable)
