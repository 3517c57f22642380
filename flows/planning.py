"""Which stages would run, and why. Pure functions over the spec and the store; nothing here starts anything."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows import environment
from metaopt_core.errors import UserError
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.identity import Identity
from metaopt_core.pipeline.stages import STAGES
from metaopt_core.pipeline.store import CHANGED_CODE, StageOutput
from metaopt_core.spec import user_source
from metaopt_core.spec.networks import ModuleSpec
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.training.checkpoint import reached

EVERYTHING = tuple(STAGES)
_REASONS_SHOWN = 3
FORCED = "--force"


@dataclass(frozen=True)
class StagePlan:
    """What will happen to one stage.

    reasons: why it runs, one a line; empty if it doesn't.
    output: the current valid output.
    """

    identity: Identity
    selected: bool
    reasons: tuple[str, ...]
    output: StageOutput | None

    @property
    def stage(self) -> str:
        return self.identity.stage

    @property
    def runs(self) -> bool:
        return self.selected and bool(self.reasons)

    @property
    def status(self) -> str:
        if self.runs:
            return "would run"
        return "up to date" if self.selected else "not selected"

    def as_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "fingerprint": self.identity.fingerprint,
            "status": self.status,
            "reasons": list(self.reasons),
        }


def select(only: str | None = None, first: str | None = None, last: str | None = None) -> tuple[str, ...]:
    """The stages that `--only`, `--from` and `--to` name, in the order in which they run. Raises UserError."""
    for option, stage in (("--only", only), ("--from", first), ("--to", last)):
        if stage is not None:
            try:
                stage_named(stage)
            except ValueError as error:
                raise UserError(f"{option} {stage}: {error}") from None
    if only is not None:
        if first is not None or last is not None:
            raise UserError("--only names one stage, --from and --to a range of them: give one or the other")
        return (only,)
    start = EVERYTHING.index(first) if first else 0
    stop = EVERYTHING.index(last) + 1 if last else len(EVERYTHING)
    if start >= stop:
        raise UserError(f"--from {first} --to {last}: {first} comes after {last}; the order is {' → '.join(EVERYTHING)}")
    return EVERYTHING[start:stop]


def stage_named(name: str) -> str:
    """A name, if it is a stage's. Raises ValueError."""
    if name not in STAGES:
        raise ValueError(f"no such stage{suggestion(name, STAGES)}; expected one of {', '.join(STAGES)}")
    return name


def plan(execution: Execution, selected: Sequence[str] = EVERYTHING, force: bool = False) -> list[StagePlan]:
    """What would happen to every stage.

    If an upstream output is damaged, a stage with an unchanged fingerprint is still up to date: made again, the upstream output has
    the same bytes. Raises UserError if a selected stage lacks an upstream output that no selected stage makes.
    """
    _check_network(execution.spec)
    plans: dict[str, StagePlan] = {}
    for name, identity in execution.identities.items():
        upstream = {stage: plans[stage] for stage in STAGES[name].upstream}
        if name in selected:
            require(execution.spec.name, name, {stage: found.output for stage, found in upstream.items() if not found.runs})
        output, reasons = assess(execution, name, {stage: found.output for stage, found in upstream.items()})
        if force and name in selected:
            reasons = (FORCED,)
        plans[name] = StagePlan(identity, name in selected, reasons if name in selected else (), output)
    return list(plans.values())


def unless_tried_out(spec: PipelineSpec, written: PipelineSpec) -> PipelineSpec:
    """The spec, without `log.register_as` if any other value differs from the written one.

    So the registry gets what is in the file, not what was tried out.
    """
    name = spec.log.register_as
    if spec == written or name != written.log.register_as:
        return spec
    return spec.model_copy(update={"log": spec.log.model_copy(update={"register_as": None})})


def _check_network(spec: PipelineSpec) -> None:
    """Raise UserError for mistakes that the source of a custom network shows."""
    model = spec.train.model
    if isinstance(model, ModuleSpec):
        user_source.check_class(model.path, model.arguments, ("outputs", "input_shape"))


def assess(
    execution: Execution, stage: str, upstream: Mapping[str, StageOutput | None]
) -> tuple[StageOutput | None, tuple[str, ...]]:
    """The valid output of a stage, if there is one, and the reasons why the stage has to run, if it has to."""
    store, identity = execution.store, execution.identities[stage]
    found = store.get(identity, {name: output for name, output in upstream.items() if output is not None})
    output = found if isinstance(found, StageOutput) else None
    if output is not None and not store.is_asked_again(identity):
        lacking = STAGES[stage].lacks(execution.spec, output.extra)
        return output, (lacking,) if lacking else ()
    begun = reached(execution.home.checkpoints / identity.fingerprint) if STAGES[stage].trains else None
    if output is not None:
        return output, (f"{FORCED}, {f'continues at {begun}' if begun else 'not finished yet'}",)
    if begun:
        return None, (f"continues at {begun}",)
    if store.folder(identity).exists():  # it was made, so its damage explains more than what changed since
        return None, (str(found),)
    return None, tuple(store.why(execution.spec.name, identity)) or (str(found),)


def for_people(reasons: Sequence[str]) -> list[str]:
    """The same reasons, with many changed files as a single one; `metaopt plan --json` lists all."""
    code = [reason for reason in reasons if reason.startswith(CHANGED_CODE)]
    if len(code) <= _REASONS_SHOWN:
        return list(reasons)
    others = [reason for reason in reasons if reason not in code]
    return [*others, f"changed code in {len(code)} files, {code[0].removeprefix(CHANGED_CODE)} among them"]


def in_brief(reasons: Sequence[str]) -> str:
    """The first reasons, and how many more there are."""
    shown = for_people(reasons)
    more = len(shown) - _REASONS_SHOWN
    return "; ".join(shown[:_REASONS_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def require(pipeline: str, stage: str, upstream: Mapping[str, StageOutput | None]) -> None:
    """Raise UserError, naming the command that helps, if a stage lacks an upstream output."""
    missing = [name for name, output in upstream.items() if output is None]
    if missing:
        raise UserError(
            f"{stage} needs the output of {' and '.join(missing)}, and there is no valid one for this spec; "
            f"make it first: {environment.command('run', pipeline, '--to', missing[-1])}"
        )


def suggestion(word: str, known: Iterable[str]) -> str:
    """` (did you mean …?)` for a mistyped word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
