"""The four stages as data: what each depends on, and so its identity.

A stage's fingerprint is a hash of its slice of the spec, the fingerprints of its upstream stages, the source of the modules that
compute its result, and the major versions of the libraries that do. What can't change the result (device, schedule, how often to
checkpoint, where the data lies) is not in it. Nothing here imports those modules or libraries, so that asking is quick.
"""

import ast
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from metaopt_core.spec import user_source
from metaopt_core.spec.addresses import tracking_address
from metaopt_core.spec.components import module_of
from metaopt_core.spec.networks import ModuleSpec
from metaopt_core.spec.pipeline import PipelineSpec

ROOT = Path(__file__).resolve().parents[2]  # the folder that holds the package
_NOT_SOURCES = ("metaopt_core.spec",)  # what a spec says is in the slice by value; how it is checked changes no result


@dataclass(frozen=True)
class Stage:
    """A stage: its name, the stages whose outputs it reads, the modules that compute its result, and their libraries.

    written_by: further files that the outputs depend on; unlike with `modules`, what they import is not followed.
    """

    name: str
    upstream: tuple[str, ...]
    modules: tuple[str, ...]
    written_by: tuple[str, ...]
    libraries: tuple[str, ...]


STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("generate", (), ("metaopt_core.distributions.contract",), ("tasks/generate.py",), ("numpy", "scipy", "pillow")),
        Stage(
            "train",
            ("generate",),
            ("metaopt_core.training.phase",),
            ("tasks/train.py", "metaopt_core/kernels/kernels.c"),
            ("numpy", "scipy", "torch"),
        ),
        Stage(
            "evaluate",
            ("generate", "train"),
            ("metaopt_core.evaluation.summary",),
            ("tasks/evaluate.py", "metaopt_core/reporting/figures.py", "metaopt_core/kernels/kernels.c"),
            ("numpy", "torch", "pandas", "scipy", "matplotlib"),
        ),
        Stage(
            "log",
            ("generate", "train", "evaluate"),
            ("metaopt_core.tracking.publishing", "metaopt_core.reporting.page"),
            ("tasks/log.py", *(f"metaopt_core/reporting/templates/{name}.html" for name in ("base", "parts", "pipeline"))),
            ("mlflow", "jinja2"),
        ),
    )
}


@dataclass(frozen=True)
class Identity:
    """What a stage's result depends on, part by part, so that a difference can be named.

    slice: the stage's part of the spec, flat: dotted key → JSON value.
    upstream: stage → fingerprint.
    sources: file, relative to the package's parent folder → SHA-256.
    libraries: library → major version.
    """

    stage: str
    slice: Mapping[str, Any]
    upstream: Mapping[str, str]
    sources: Mapping[str, str]
    libraries: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of a SHA-256 over all parts."""
        parts = [self.stage, self.slice, self.upstream, self.sources, self.libraries]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def identities(spec: PipelineSpec) -> dict[str, Identity]:
    """The identity of every stage of a pipeline, in the order in which they run."""
    found: dict[str, Identity] = {}
    for stage in STAGES.values():
        found[stage.name] = Identity(
            stage=stage.name,
            slice=_slice(stage.name, spec),
            upstream={name: found[name].fingerprint for name in stage.upstream},
            sources=_sources(stage, components_of(stage.name, spec)) | _user_sources(stage, spec),
            libraries={name: importlib.metadata.version(name).split(".")[0] for name in stage.libraries},
        )
    return found


def _slice(stage: str, spec: PipelineSpec) -> dict[str, Any]:
    """The values of the spec that a stage's result depends on, flat, with what `none` stands for filled in."""
    match stage:
        case "generate":
            values = flatten("generate", spec.generate.model_dump(mode="json", exclude=set(spec.generate.not_identity))) | {
                "generate.seed": spec.data_seed
            }
            if (data := spec.generate.data()) is not None:
                values["data"] = data
        case "train":
            values = flatten("train", spec.train.model_dump(mode="json", exclude={"checkpoint_every"})) | {"seed": spec.seed}
            values["train.validation.shots"] = spec.validation_shots
            values["train.validation.queries"] = spec.validation_queries
            values["train.pretrain_iterations"] = spec.pretrain_iterations
            values["train.baselines"] = [method.key(spec.train) for method in spec.methods if method.trained and method.baseline]
        case "evaluate":
            values = flatten("evaluate", spec.evaluate.model_dump(mode="json"))
            values["evaluate.shots"] = spec.evaluate_shots
            values["evaluate.queries"] = spec.evaluate_queries
            values["evaluate.inner_lr"] = spec.evaluate_inner_lr
            values["evaluate.baseline_lrs"] = list(spec.baseline_lrs)
        case "log":
            values = flatten("log", spec.log.model_dump(mode="json")) | {"name": spec.name}
            values["log.tracking_uri"] = tracking_address(spec.log.tracking_uri) or "embedded"
        case _:
            raise ValueError(f"no stage {stage!r}: expected one of {', '.join(STAGES)}")
    return values


def flatten(prefix: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(f"{prefix}.{key}", value) if isinstance(value, Mapping) else {f"{prefix}.{key}": value}
    return flat


def _sources(stage: Stage, components: list[str]) -> dict[str, str]:
    """SHA-256 of a stage's modules, of all that they import of the library, directly or not, and of what writes its files."""
    pending = [*stage.modules, *(name for name in components if name.startswith("metaopt_core."))]
    files = {name: _sha256((ROOT / name).read_bytes()) for name in stage.written_by if (ROOT / name).is_file()}
    while pending:
        module = pending.pop()
        path = _path(module)
        if path is None or module.startswith(_NOT_SOURCES) or (name := path.relative_to(ROOT).as_posix()) in files:
            continue
        files[name], imported = _read(path)
        pending.extend(imported)
    return dict(sorted(files.items()))


def _user_sources(stage: Stage, spec: PipelineSpec) -> dict[str, str]:
    """Those of a network of the user's own."""
    model = spec.train.model
    found = user_source.sources(model.path) if isinstance(model, ModuleSpec) and stage.name in {"train", "evaluate"} else {}
    for module in components_of(stage.name, spec):
        if not module.startswith("metaopt_core."):
            found |= user_source.sources(f"{module}:component")
    return found


def components_of(stage: str, spec: PipelineSpec) -> list[str]:
    """The modules of the components that a stage computes with: they are found by name, so no import shows them."""
    methods = {"train": [one for one in spec.methods if one.trained], "evaluate": spec.methods}.get(stage, ())
    parts: list[Any] = [*methods, *(spec.metrics if stage == "evaluate" else ())]
    if stage in {"generate", "train", "evaluate"}:
        parts.append(spec.generate)
    return sorted({module_of(part) for part in parts})


def _path(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@cache
def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    """The SHA-256 of a file and what it imports of the library (names inside a module are among them, and have no file)."""
    text = path.read_bytes()
    imported = []
    for node in ast.walk(ast.parse(text if path.suffix == ".py" else b"")):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return _sha256(text), tuple(name for name in imported if name.startswith("metaopt_core."))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
