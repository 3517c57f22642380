"""The report of a pipeline: one HTML page that needs no other file, for people who want to know what came of it.

What was asked, what was learned, how well it adapts, on whom it fails, and what it cost. `report.html` is its template.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from metaopt_core.evaluation.summary import Measure, Summary, at_horizon, best_baseline, counted, difference, worst_tasks
from metaopt_core.pipeline.stages import flatten
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.spec.evaluate import IN_DISTRIBUTION
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.train import ImplicitSpec, InnerSpec, TrainSpec
from metaopt_core.tracking.description import spec_yaml

_WORST_NAMED = 10
_PHASES = {"pretrained": "pre-training", "protonet": "ProtoNet"}


def render(spec: PipelineSpec, upstream: Mapping[str, StageOutput]) -> str:
    """The page, from the outputs of generate, train and evaluate."""
    summary: dict[str, Any] = json.loads((upstream["evaluate"] / "summary.json").read_text())
    table = pd.read_parquet(upstream["evaluate"] / "tasks.parquet")
    history = pd.read_parquet(upstream["train"] / "history.parquet")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"value": Measure(summary).value, "difference": Measure(summary).difference, "seconds": _seconds}
    return environment.get_template("report.html").render(
        spec=spec,
        yaml=spec_yaml(spec),
        summary=summary,
        measure=Measure(summary),
        counted=counted,
        safe=summary["methods"].get(f"{summary['learned']}_safe", {}).get("label"),
        finding=_finding(summary),
        facts=_facts(spec, upstream["train"]),
        rows=list(_rows(summary)),
        gap=_gap(history, summary["learned"], upstream["train"].extra.get("best_iteration")),
        pairs={(d["of"], d["against"]): d for d in summary["differences"]},
        worst=_worst(summary, table),
        shifted=list(_shifted(summary)),
        cost=_cost(spec, upstream),
        figures=dict(_figures(upstream)),
    )


def _finding(summary: Summary) -> dict[str, Any]:
    """The result in short: the logged model's way to adapt beside the best baseline."""
    model, baseline, key = summary["model"], best_baseline(summary), Measure(summary).key
    paired = difference(summary, model, baseline, key) if baseline else None
    verdict = "unclear"
    if paired and paired["mean"] is not None and paired["ci95"] is not None and abs(paired["mean"]) > paired["ci95"]:
        verdict = "better" if (paired["mean"] > 0) == Measure(summary).larger_is_better else "worse"
    return {
        "model": summary["methods"][model]["label"],
        "statistics": at_horizon(summary, model)[key],
        "entry": at_horizon(summary, model),
        "baseline": summary["methods"][baseline]["label"] if baseline else None,
        "of_baseline": at_horizon(summary, baseline)[key] if baseline else None,
        "paired": paired,
        "verdict": verdict,
    }


def _rows(summary: Summary) -> Iterator[dict[str, Any]]:
    """A row a method, at the horizon."""
    key = Measure(summary).key
    for name, method in summary["methods"].items():
        lr = method["inner_lr"]
        grid = summary["baseline_lrs"]
        chosen = method["baseline"] and method["takes_steps"]
        edge = chosen and len(grid) > 1 and lr in (min(grid), max(grid))
        if lr is not None:
            step_size = f"{lr:g}" + (" chosen" if chosen else "") + (", at the edge" if edge else "")
        else:
            step_size = "learned" if method["takes_steps"] else "–"
        yield {
            "name": name,
            "label": method["label"],
            "step_size": step_size,
            "takes_steps": method["takes_steps"],
            "entry": at_horizon(summary, name),
            "statistics": at_horizon(summary, name)[key],
            "inductive": method["inductive"] and method["inductive"][key],
            "collected": method["collected"] and method["collected"][key],
            "ece": method["pooled"].get("calibration_error"),
            "against": difference(summary, summary["model"], name, key) if name != summary["model"] else None,
        }


def _facts(spec: PipelineSpec, trained: StageOutput) -> dict[str, str]:
    """What was asked, a line each."""
    train, inner, outer = spec.train, spec.train.inner, spec.train.outer
    tasks = _settings(spec.generate.model_dump(mode="json", exclude=set(spec.generate.not_shown)))
    kind = f"{train.ways}-way " if train.ways else ""
    asked, held_out = (
        f"{kind}{shots}-shot with {_count(queries, 'query')} {'a class' if train.ways else 'a task'}"
        for shots, queries in ((train.shots, train.queries), (spec.evaluate_shots, spec.evaluate_queries))
    )
    return {
        "Tasks": f"{spec.generate.distribution}: {tasks}",
        "Training": f"{asked}; {_count(train.iterations, 'iteration')} of {_count(train.meta_batch_size, 'task')}",
        "Network": f"{train.model.name}: {_settings(train.model.model_dump(mode='json', exclude={'name'}))}",
        "Algorithm": f"{train.label}; {_meta_gradient(train)}",
        "Inner loop": _inner_loop(inner),
        "Outer loop": f"Adam, step size {outer.lr:g}, {outer.schedule}"
        + (f", gradients clipped to norm {outer.clip_norm:g}" if outer.clip_norm else ""),
        "Evaluation": f"{held_out}; {_count(spec.generate.held_out.test_tasks, 'meta-test task')} that training has not seen; "
        f"up to {_count(spec.evaluate.steps, 'step')}, compared after {spec.horizon}",
        "Seed and device": f"{spec.seed}, {trained.extra.get('device', spec.device)}",
    }


def _meta_gradient(train: TrainSpec) -> str:
    said = f"{train.meta_gradient.replace('_', ' ')} meta-gradient"
    if train.meta_gradient == "implicit":
        implicit = train.implicit or ImplicitSpec()
        said += f", λ = {implicit.proximal:g}, {_count(implicit.solver_steps, 'step')} of conjugate gradients"
    if train.first_order_share:
        said += f", first order in the first {train.first_order_share:.0%} of iterations"
    if train.outer_loss == "multi_step":
        return f"{said}, of the losses after every step (the last one's ever more) in the first {train.multi_step_share:.0%}"
    return f"{said} of the loss after the last step"


def _inner_loop(inner: InnerSpec) -> str:
    adapts = {"all": "all parameters", "head": "the last layer alone", "body": "all but the last layer"}
    moves = adapts[inner.adapts] if isinstance(inner.adapts, str) else ", ".join(inner.adapts)
    rule = inner.rule.replace("_", " ") + (f" ({inner.momentum:g})" if inner.rule == "momentum" else "")
    said = f"{_count(inner.steps, 'step')} of {rule} on {moves}, step size {inner.lr:g}"
    if inner.learned_lr != "none":
        said += f" at first and then learned, {inner.learned_lr.replace('_', ' ')}"
        said += f", between {inner.lr_bounds[0]:g} and {inner.lr_bounds[1]:g}" if inner.lr_bounds else ""
    said += f", gradients clipped to norm {inner.clip_norm:g}" if inner.clip_norm else ""
    return said + (f", minibatches of {inner.minibatch}" if inner.minibatch else "")


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key[1:].replace('_', ' ').replace('.', ' ')} {_plain(value)}" for key, value in flatten("", values).items())


def _plain(value: Any) -> str:
    if isinstance(value, list):  # bounds are real numbers, and whole ones the sizes of layers
        return (" to " if all(isinstance(part, float) for part in value) else ", ").join(f"{part:g}" for part in value)
    return str(value)


def _gap(history: pd.DataFrame, learned: str, best_iteration: int | None) -> dict[str, float] | None:
    """The loss on meta-train and on meta-validation tasks, of the parameters that were kept."""
    kept = history[(history["phase"] == learned) & (history["iteration"] == best_iteration)]
    values = dict(zip(kept["name"], kept["value"], strict=True))
    names = ("meta_train_loss", "validation_loss")
    return {name: float(values[name]) for name in names} if set(names) <= values.keys() else None


def _worst(summary: Summary, table: pd.DataFrame) -> list[dict[str, Any]]:
    """The tasks with the largest losses: before and after adaptation, and of the best baseline."""
    horizon, baseline = summary["horizon"], best_baseline(summary)
    table = table[table["variant"] == IN_DISTRIBUTION]
    by_method = {str(name): rows.set_index("task") for name, rows in table.groupby("method", sort=False)}
    mine = by_method[summary["model"]]
    found = []
    for task in worst_tasks(summary, table, _WORST_NAMED):
        row = {"task": task, "before": mine.loc[task, "loss_0"], "after": mine.loc[task, f"loss_{horizon}"]}
        key = summary["primary"]
        row["primary"] = mine.loc[task, f"{key}_{horizon}"] if key != "loss" else None
        row["baseline"] = by_method[baseline].loc[task, f"loss_{horizon}"] if baseline else None
        found.append(row)
    return found


def _shifted(summary: Summary) -> Iterator[dict[str, Any]]:
    """A row a variant of the test tasks, the first as trained for: every method's cell at the horizon."""
    key = Measure(summary).key
    for name, variant in {IN_DISTRIBUTION: summary, **summary["shifted"]}.items() if summary["shifted"] else ():
        cells = [
            {
                "statistics": at_horizon(variant, method)[key],
                "diverged": at_horizon(variant, method)["diverged"],
                "change": result.get("change", {"mean": None})["mean"],
            }
            for method, result in variant["methods"].items()
        ]
        yield {"name": name, "changes": _settings(variant.get("changes", {})), "cells": cells}


def _cost(spec: PipelineSpec, upstream: Mapping[str, StageOutput]) -> dict[str, Any]:
    extra = upstream["train"].extra
    iterations = extra.get("iterations_by_phase", {})
    names = _PHASES | {spec.train.slug: spec.train.label}
    shares = extra.get("time_shares", {})
    phases = [
        {"label": names.get(name, name), "seconds": seconds, "iterations": iterations.get(name), "shares": shares.get(name, {})}
        for name, seconds in extra.get("seconds_by_phase", {}).items()
    ]
    stages = {name: output.seconds for name, output in upstream.items()}
    return {
        "stages": stages,
        "phases": phases,
        "parts": list(next(iter(shares.values()), {})),
        "plan": extra.get("plan"),
        "total": sum(stages.values()),
        "best_iteration": extra.get("best_iteration"),
    }


def _figures(upstream: Mapping[str, StageOutput]) -> Iterator[tuple[str, str]]:
    """Every figure by its file's name, as the data of an image."""
    for output in upstream.values():
        for path in sorted(Path(output.folder).glob("*.png")):
            yield path.stem, f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _seconds(number: float) -> str:
    if number < 10:
        return f"{number:.1f} s"
    if number < 120:
        return f"{number:.0f} s"
    minutes, seconds = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def _count(number: int, word: str) -> str:
    """`1 query`, `3 queries`."""
    several = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{number:,} {word if number == 1 else several}"
