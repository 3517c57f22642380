"""Impossible combinations of values, each of which is valid by itself."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from metaopt_core.spec.base import DEEPEST, LARGEST_SEED, Impossibility, problems_of, unfit
from metaopt_core.spec.components import METRICS, known
from metaopt_core.spec.distribution import Asked
from metaopt_core.spec.evaluate import PROTOCOL, AnyShift, ShiftSpec
from metaopt_core.spec.memory import shortages
from metaopt_core.spec.method import named_method
from metaopt_core.spec.metric import Metric
from metaopt_core.spec.networks import Conv4Spec, ModuleSpec, PicturesSpec, ResNet12Spec, too_small, unknown_parameter
from metaopt_core.spec.resolved import Resolved
from metaopt_core.spec.sweep import SweepSpec
from metaopt_core.spec.train import TrainSpec


def impossibilities(spec: Resolved) -> Iterator[Impossibility]:
    """Impossible combinations in a spec, each with the key that has to change."""
    yield from _unfit(spec, ())
    yield from _plain_impossibilities(spec)
    yield from shortages(spec)
    for name, shift in spec.shifts.items():
        yield from _shift_impossibilities(spec, name, shift)
    if spec.seeds > 1 and spec.splits > 1:
        yield ("splits",), f"{spec.splits} splits and {spec.seeds} seeds are two kinds of repetition: expected one of them"
    for key, first, count in (("seeds", spec.seed, spec.seeds), ("splits", spec.data_seed, spec.splits)):
        if first + count > LARGEST_SEED + 1:
            yield (key,), f"{count} from {first} on, but no seed is larger than {LARGEST_SEED}: expected fewer"
    if spec.sweep is not None:
        yield from _sweep_impossibilities(spec, spec.sweep)


def _unfit(value: Any, path: tuple[str, ...], depth: int = 0) -> Iterator[Impossibility]:
    """Values that a pipelines file can't contain, in a spec that came from Prefect's API or from Python."""
    if isinstance(value, str):
        if wrong := unfit(value):
            yield path, wrong
    elif depth > DEEPEST:
        yield path, f"more than {DEEPEST} levels of nesting, expected a few"
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _unfit(one, path, depth + 1)
    elif isinstance(value, BaseModel | Mapping):
        for key, one in value if isinstance(value, BaseModel) else value.items():
            yield from _unfit(key, path)
            yield from _unfit(one, (*path, key), depth + 1)


def _twice(place: tuple[str, ...], what: str, names: Iterable[str]) -> Iterator[Impossibility]:
    """Names under which results would be kept together that are not the same."""
    for name, count in Counter(names).items():
        if count > 1:
            yield place, f"two {what} with the name {name}: expected one"


def _plain_impossibilities(spec: Resolved, trains: bool = True) -> Iterator[Impossibility]:
    """trains: whether tasks with these ways are used for training, or only for evaluation."""
    yield from _twice(("evaluate", "metrics"), "metrics", (one.name for one in spec.metrics))
    yield from _twice(("train", "baselines"), "methods", (method.key(spec.train) for method in spec.methods))
    yield from _impossibilities_of_targets(spec)
    yield from spec.generate.impossibilities(_asked(spec, trains))
    yield from _train_impossibilities(spec.train)
    yield from _solver_impossibilities(spec.train)
    if (model := spec.evaluate.model) not in (None, "best"):
        names = [method.key(spec.train) for method in spec.methods if method.can_be_logged]
        if model not in names:
            meant = get_close_matches(str(model), names, n=1)
            expected = f"did you mean {meant[0]}?" if meant else f"expected best, or one of {', '.join(names)}"
            yield ("evaluate", "model"), f"no method {model} is compared that can be logged, {expected}"
    if spec.evaluate.repeats > 1 and not spec.generate.resamples:
        why = f"{spec.generate.noun} are stored with one support set each"
        yield ("evaluate", "repeats"), f"{spec.evaluate.repeats} repeats, but {why}: expected 1"
    if spec.evaluate.adaptation == "safe":
        yield from _safe_impossibilities(spec.train)


def _asked(spec: Resolved, trains: bool) -> Asked:
    return Asked(
        spec.train.ways,
        {
            ("train",): (spec.train.most_shots, spec.train.queries),
            ("train", "validation"): (spec.validation_shots, spec.validation_queries),
            ("evaluate",): (spec.evaluate_shots, spec.evaluate_queries),
        },
        {
            (*block, key)
            for block, own in ((("train", "validation"), spec.train.validation), (("evaluate",), spec.evaluate))
            for key in ("shots", "queries")
            if getattr(own, key) is not None
        },
        trains,
    )


def _impossibilities_of_targets(spec: Resolved) -> Iterator[Impossibility]:
    """What is impossible for tasks with real targets, or with classes, in any distribution."""
    noun, train, shape = spec.generate.noun, spec.train, spec.generate.shape
    if spec.generate.targets == "classes":
        if train.ways is None:
            yield ("train", "ways"), f"missing, and {noun} are classification: expected the number of classes of a task"
    else:
        if train.ways is not None:
            yield ("train", "ways"), f"{train.ways} ways, but {noun} are regression tasks and have no classes: remove it"
        if train.reduction != "mean":
            yield ("train", "reduction"), f"sum_over_ways needs classes, and {noun} have none: expected mean"
    for name in train.baselines or ():
        method = named_method(name)
        if (why := method.refusal(train, spec.generate.targets)) is not None:
            yield ("train", "baselines"), f"{name} {why.replace('TASKS', noun)}: remove it"
    if isinstance(train.model, PicturesSpec) and shape is not None and len(shape.input_shape) != 3:
        yield ("train", "model", "name"), f"{train.model.name} takes pictures, and {noun} have none: expected mlp or module"
    elif isinstance(train.model, Conv4Spec | ResNet12Spec) and shape is not None:
        key, wrong = "pooling" if isinstance(train.model, Conv4Spec) else "widths", too_small(train.model, *shape.input_shape[1:])
        if wrong is not None:
            yield ("train", "model", key), wrong


def _safe_impossibilities(train: TrainSpec) -> Iterator[Impossibility]:
    why = None
    if train.solved:
        why = f"train.inner.solver is {train.inner.solver}, which takes no steps"
    elif train.inner.rule != "gradient_descent":
        why = f"train.inner.rule is {train.inner.rule}"
    elif train.inner.minibatch is not None:
        why = f"train.inner.minibatch is {train.inner.minibatch}"
    elif train.meta_gradient == "implicit":
        why = "train.meta_gradient is implicit, whose inner loss has a term of its own"
    elif isinstance(train.model, PicturesSpec) and train.model.normalization == "per_step":
        why = "train.model.normalization is per_step, which belongs to the steps as they were learned"
    if why is not None:
        yield ("evaluate", "adaptation"), f"safe is gradient descent on the whole support set, but {why}: expected plain"


def _solver_impossibilities(train: TrainSpec) -> Iterator[Impossibility]:
    """Settings of gradient steps beside a solver that takes none, and those of another solver."""
    inner, solver = train.inner, train.inner.solver
    if solver != "gp" and inner.process is not None:
        yield ("train", "inner", "process"), f"the solver is {solver}: remove it, or expected solver: gp"
    if solver == "gradient":
        if inner.prior != "none":
            yield ("train", "inner", "prior"), "gradient steps begin at the initialization: expected none, or another solver"
        return
    for block, path, keys in ((train, ("train",), _OF_META_GRADIENT), (inner, ("train", "inner"), _OF_STEPS)):
        for key in keys:
            value, default = getattr(block, key), type(block).model_fields[key].default
            if value != default:
                expected = "remove it" if default is None else f"expected {default}"
                yield (*path, key), f"the solver {solver} takes no gradient steps: {expected}"
    if train.compile == "on":
        yield ("train", "compile"), f"the solver {solver} has no functions that are compiled: expected auto or off"
    process = inner.process
    if process is not None and process.kernel_parameters == "by_task" and process.trained_by != "queries":
        where = "train", "inner", "process", "trained_by"
        yield where, "kernel parameters that are fitted by_task are judged by what they make of queries: expected queries"
    if isinstance(train.model, PicturesSpec) and train.model.normalization == "per_step":
        yield ("train", "model", "normalization"), f"the solver {solver} takes no steps: expected another than per_step"


_OF_STEPS = ("steps", "learned_lr", "lr_bounds", "adapts", "rule", "clip_norm", "minibatch")
_OF_META_GRADIENT = ("meta_gradient", "outer_loss", "first_order_share", "implicit", "backward")


def _train_impossibilities(train: TrainSpec) -> Iterator[Impossibility]:
    model = train.model
    if isinstance(model, PicturesSpec) and model.normalization == "group":
        indivisible = [filters for filters in model.every_width if filters % model.groups]
        if indivisible:
            yield (
                ("train", "model", "groups"),
                f"{model.groups} groups of {indivisible[0]} filters: expected a divisor",
            )
    kind, inner = train.meta_gradient, train.inner
    known = None if isinstance(model, ModuleSpec) else model.adaptable  # a module's names are known only once it is made
    if isinstance(inner.adapts, tuple) and known and (unknown := unknown_parameter(inner.adapts, known)) is not None:
        yield ("train", "inner", "adapts"), unknown
    if train.learns_sizes and inner.lr_bounds is None and (train.validation.steps or 0) > inner.steps:
        yield (
            ("train", "validation", "steps"),
            f"{train.validation.steps} steps, but step sizes are learned for {inner.steps}: expected at most that many, or "
            "train.inner.lr_bounds to keep them small",
        )
    if isinstance(model, PicturesSpec) and model.normalization == "per_step":
        where = "train", "model", "normalization"
        first_order = kind == "first_order" or train.first_order_share == 1
        several_losses = train.outer_loss == "multi_step" and train.multi_step_share > 0
        if kind in {"reptile", "implicit"}:
            yield (
                where,
                f"the meta-gradient `{kind}` says nothing about what belongs to a single step: expected another than per_step",
            )
        elif inner.steps > 1 and first_order and not several_losses:
            yield (
                where,
                "by a first-order meta-gradient of the last step's loss, no other step's scale and shift are learned: expected "
                "outer_loss: multi_step, or another than per_step",
            )
    if kind in {"reptile", "implicit"}:
        if inner.adapts != "all":
            yield ("train", "inner", "adapts"), f"the meta-gradient `{kind}` learns nothing but what adapts: expected all"
        if inner.learned_lr != "none":
            yield ("train", "inner", "learned_lr"), f"the meta-gradient `{kind}` says nothing about step sizes: expected none"
        if train.outer_loss != "last_step":
            yield ("train", "outer_loss"), f"the meta-gradient `{kind}` knows the end of the inner loop alone: expected last_step"
    if kind != "exact":
        if train.first_order_share:
            yield ("train", "first_order_share"), f"the meta-gradient is `{kind}` from the first iteration on: expected 0"
        if train.backward != "auto":
            yield ("train", "backward"), f"the meta-gradient `{kind}` does not go back through the inner loop: expected auto"
    if kind == "implicit" and inner.minibatch is not None:
        yield ("train", "inner", "minibatch"), "the implicit meta-gradient is of one inner loss, the whole support set's: remove it"
    if train.implicit is not None and kind != "implicit":
        yield ("train", "implicit"), f"the meta-gradient is `{kind}`: remove it, or expected meta_gradient: implicit"
    if inner.lr_bounds is not None:
        low, high = inner.lr_bounds
        if inner.learned_lr == "none":
            yield ("train", "inner", "lr_bounds"), "no step size is learned: remove it, or choose a learned_lr"
        elif not low <= inner.lr <= high:
            yield (
                ("train", "inner", "lr"),
                f"{inner.lr:g}, where step sizes begin, is out of lr_bounds: expected {low:g} to {high:g}",
            )
    support = train.most_shots * (train.ways or 1)
    if inner.minibatch is not None and inner.minibatch > support:
        yield ("train", "inner", "minibatch"), f"{inner.minibatch} of {support} support examples: expected at most all of them"


def _sweep_impossibilities(spec: Resolved, sweep: SweepSpec) -> Iterator[Impossibility]:
    names = [one.name for one in spec.metrics if not one.pooled]
    if (name := sweep.objective.metric) not in names:
        kinds = {one.targets for one in known(METRICS, Metric).values() if one.name == name and not one.pooled}
        of_classes = spec.generate.targets == "real"
        why = "needs classes, and regression tasks have none" if of_classes else "needs real targets, and classes are none"
        needs = f"{name} {why}" if kinds and spec.generate.targets not in kinds else f"no metric {name} for such tasks"
        yield ("sweep", "objective", "metric"), f"{needs}: expected {' or '.join(names)}"
    if (sweep.objective.steps or 0) > spec.evaluate.steps:
        yield (
            ("sweep", "objective", "steps"),
            f"{sweep.objective.steps} steps, but evaluate goes to {spec.evaluate.steps}: expected at most that many, or a larger "
            "evaluate.steps",
        )
    for key in sweep.trial.keys() & sweep.parameters.keys():
        yield ("sweep", "trial", key), "searched under sweep.parameters: expected it in one of the two"


def _shift_impossibilities(spec: Resolved, name: str, shift: ShiftSpec) -> Iterator[Impossibility]:
    """What a variant changes that its tasks don't have, and what would be impossible in a pipeline of its own."""
    generate, place, changes = spec.generate, ("evaluate", "shifted", name), shift.changes
    if not shift.said:
        shiftable = [
            key for key in type(generate).Shift.model_fields if key != "distribution" and key in generate.shift_keys(changes)
        ]
        example = "ways" if generate.targets == "classes" else next(iter(shiftable), "shots")
        yield place, f"nothing is shifted, expected a key such as {example}"
        return
    protocol = PROTOCOL if generate.targets == "classes" else PROTOCOL - {"ways"}
    takes = generate.shift_keys(changes) | protocol
    if strange := [key for key in shift.said if key not in takes]:
        kind = changes.get("distribution") or generate.distribution
        for key in strange:
            no_setting = f"{kind} tasks have no such setting, expected one of {', '.join(sorted(takes))}"
            known = key in AnyShift.model_fields  # of another distribution
            meant = [] if known else get_close_matches(key, takes, n=1)
            yield (*place, key), f"unknown key, did you mean {meant[0]}?" if meant else no_setting
        return
    for key, why in generate.shift_refusals(changes):
        yield (*place, key), why
    before = set(_plain_impossibilities(spec))
    try:
        type(generate).Shift.model_validate(changes)  # for a user's distribution, nothing has been checked before
        shifted = spec.shifted_by(shift)
    except ValidationError as error:
        yield from problems_of(error, type(generate).Shift, place)
        return
    for path, message in _plain_impossibilities(shifted, trains=False):
        if (path, message) not in before:
            yield (*place, *(key for key in path[-1:] if key in shift.said)), message
