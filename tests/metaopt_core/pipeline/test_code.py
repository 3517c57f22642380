"""The code that a stage depends on, in both directions: sources are changed in a copy, and the right stages re-run, no others."""

import ast
import contextlib
import inspect
import os
import pkgutil
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from metaopt_core.distributions.omniglot import archives
from metaopt_core.pipeline import code
from metaopt_core.pipeline.code import NOT_FOLLOWED, ROOT
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import HANDED
from metaopt_core.pipeline.normal_form import PRESENTATION, TELLS, pieces_of
from metaopt_core.pipeline.stages import STAGES
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.reporting import figures
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking.connection import initialize
from tests.made_outputs import sinusoid_spec
from tests.small import SMALL_CONV, noise_pictures

GENERATE, TRAIN, EVALUATE, LOG = NAMES = tuple(STAGES)

# file, what is changed in it (a pattern and what takes its place), and the stages that re-run
TOLD = [
    ("metaopt_core/progress.py", r"s left", "s to go"),
    ("metaopt_core/errors.py", r"class StoppedError", "class Another(Exception):\n    pass\n\n\nclass StoppedError"),
    ("metaopt_core/evaluation/protocol.py", r'"adapting to new tasks"', '"evaluating"'),
    ("metaopt_core/methods/by_gradient.py", r'f"choosing the step size of', 'f"step size of'),
    ("metaopt_core/methods/pretrained/__init__.py", r'title = "', 'title = "well '),
    ("metaopt_core/methods/pretrained/__init__.py", r'color = ".*"', 'color = "tab:pink"'),
    ("metaopt_core/methods/pretrained/__init__.py", r'about = "', 'about = "was '),
    ("metaopt_core/methods/pretrained/__init__.py", r"rank = 30", "rank = 31"),  # the order is a value of the identity
    ("metaopt_core/methods/protonet/__init__.py", r'line = "--"', 'line = ":"'),
    ("metaopt_core/distributions/functions/settings.py", r'judged_by = \("loss",\)', 'judged_by = ("loss", "rmse")'),
    ("metaopt_core/distributions/functions/settings.py", r"not_shown = frozenset\(\{", 'not_shown = frozenset({"noise", '),
    ("metaopt_core/distributions/omniglot/settings.py", r'noun = "', 'noun = "some '),
    ("metaopt_core/distributions/omniglot/settings.py", r'libraries = \("pillow",\)', "libraries = ()"),  # so are they
    ("metaopt_core/evaluation/metrics/calibration_error.py", r"how far the probability", "by how much the probability"),
    ("metaopt_core/evaluation/metrics/squared_error.py", r'title="mean squared error"', 'title="squared error"'),
    ("metaopt_core/distributions/omniglot/archives.py", r'"reading Omniglot"', '"decoding"'),
    ("metaopt_core/distributions/omniglot/archives.py", r"it may be truncated", "it is cut short"),
    ("metaopt_core/distributions/omniglot/figures.py", r"figsize=", "dpi=50, figsize="),
    ("metaopt_core/reporting/figures.py", r"figsize=", "dpi=50, figsize="),
    ("metaopt_core/spec/train.py", r'description="Adam\'s step size."', 'description="Of Adam."'),
    (
        "metaopt_core/spec/train.py",
        r"    outer: OuterSpec",
        "    novel: Positive | None = Field(None, description='New.')\n    outer: OuterSpec",
    ),
    ("metaopt_core/spec/train.py", r'"exact": "MAML"', '"exact": "Maml"'),
    ("metaopt_core/spec/train.py", r'"adapts": "head"', '"adapts": "body"'),  # its values are part of the identity
    ("metaopt_core/spec/impossible.py", r"expected a divisor", "expected a number that divides it"),
    ("metaopt_core/spec/impossible.py", r"if indivisible", "if len(indivisible) > 1"),
    ("metaopt_core/training/loop.py", r"expected a finite number", "expected numbers"),
    ("metaopt_core/kernels/kernels.c", r"/\*", "/* changed: "),
]
COMPUTED = [
    ("metaopt_core/meta/inner_loop.py", r"_ADAM_EPSILON = 1e-8", "_ADAM_EPSILON = 1e-7", {TRAIN, EVALUATE, LOG}),
    ("metaopt_core/spec/train.py", r'"exact": "maml"', '"exact": "exact"', {TRAIN, EVALUATE, LOG}),  # stored under this name
    ("metaopt_core/methods/pretrained/__init__.py", r"takes_steps = True", "takes_steps = False", {EVALUATE, LOG}),
    ("metaopt_core/methods/pretrained/__init__.py", r"    trained = True", "    trained = False", {TRAIN, EVALUATE, LOG}),
    ("metaopt_core/meta/gradients.py", r"def first_order\(", "def first_order(unused, ", {TRAIN, EVALUATE, LOG}),
    ("metaopt_core/spec/resolved.py", r"shift\.shots or self\.evaluate_shots", "self.evaluate_shots", {EVALUATE, LOG}),
    (
        "metaopt_core/spec/resolved.py",
        r"self\.train\.validation\.shots or self\.train\.most_shots",
        "self.train.most_shots",
        {TRAIN, EVALUATE, LOG},
    ),
    (
        "metaopt_core/distributions/functions/__init__.py",
        r"model_validate\(kept \| changed\)",
        "model_validate(changed)",
        {EVALUATE, LOG},
    ),
    ("metaopt_core/distributions/random.py", r"_PER_COUNT = ", "_PER_COUNT = 2 * ", set(NAMES)),
    ("metaopt_core/distributions/omniglot/archives.py", r"Resampling.BILINEAR", "Resampling.BOX", set(NAMES)),
    ("metaopt_core/evaluation/metrics/squared_error.py", r"\.square\(\)", ".abs()", {EVALUATE, LOG}),
    ("metaopt_core/evaluation/metrics/calibration_error.py", r"BINS = 15", "BINS = 14", {EVALUATE, LOG}),
    ("metaopt_core/networks/convolution.py", r"def max_pool\(", "def max_pool(unused, ", {TRAIN, EVALUATE, LOG}),
    ("metaopt_core/kernels/kernels.c", r"\+=", "-=", {TRAIN, EVALUATE, LOG}),
    ("metaopt_core/tracking/registry.py", r"def register\(", "def register(unused, ", {LOG}),
    ("metaopt_core/reporting/templates/base.html", r"<body>", "<body id='page'>", {LOG}),
    ("tasks/evaluate.py", r"_TASKS_SHOWN = 4", "_TASKS_SHOWN = 5", {EVALUATE, LOG}),
]

WAVES = sinusoid_spec(
    "waves",
    generate={"distribution": "sinusoid", "held_out": {"validation_tasks": 5, "test_tasks": 10}},
    evaluate={"steps": 2, "shifted": {"far": {"x": [5.0, 10.0]}}},
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources that tests change, and leave as they found it."""
    folder = tmp_path_factory.mktemp("tree")
    for package in code.PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def before(tree: Path) -> dict[str, Any]:
    return digests(tree)


@contextlib.contextmanager
def changed(files: Iterable[Path], change: Callable[[str], str]) -> Iterator[None]:
    """Other sources for the length of a block."""
    kept = {path: (path.read_text(), path.stat().st_mtime_ns) for path in files}
    for path, (text, _) in kept.items():
        path.write_text(change(text))
    try:
        yield
    finally:
        for path, (text, modified) in kept.items():
            path.write_text(text)
            os.utime(path, ns=(modified, modified))


def digests(root: Path) -> dict[str, Any]:
    """What counts for each stage of two pipelines."""
    return {
        stage.name: {spec.name: code.digests(entries(stage.name, spec), stage.follows, root) for spec in (WAVES, SMALL_CONV)}
        for stage in STAGES.values()
    }


def entries(stage: str, *specs: PipelineSpec) -> list[str]:
    return [STAGES[stage].task, HANDED, *(path for spec in specs for path in STAGES[stage].components(spec))]


def re_run(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """The stages whose code differs, and those below them."""
    found: set[str] = set()
    for stage in STAGES.values():
        if before[stage.name] != after[stage.name] or not found.isdisjoint(stage.upstream):
            found.add(stage.name)
    return found


def replaced(pattern: str, replacement: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        after = re.sub(pattern, lambda _: replacement, text, count=1)
        assert after != text, f"there is no {pattern}"
        return after

    return change


@pytest.mark.parametrize(("file", "pattern", "replacement"), TOLD)
def test_what_is_told_to_people_re_runs_nothing(
    tree: Path, before: dict[str, Any], file: str, pattern: str, replacement: str
) -> None:
    with changed([tree / file], replaced(pattern, replacement)):
        assert re_run(before, digests(tree)) == set()


@pytest.mark.parametrize(("file", "pattern", "replacement", "stages"), COMPUTED)
def test_what_computes_re_runs_the_stages_that_use_it(
    tree: Path, before: dict[str, Any], file: str, pattern: str, replacement: str, stages: set[str]
) -> None:
    with changed([tree / file], replaced(pattern, replacement)):
        assert re_run(before, digests(tree)) == stages


def test_comments_formatting_docstrings_and_type_hints_re_run_nothing_in_any_file(tree: Path, before: dict[str, Any]) -> None:
    def rewritten(text: str) -> str:
        parsed = ast.parse(text)
        for node in ast.walk(parsed):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                node.body[0] = ast.Expr(ast.Constant("Something else."))
            if isinstance(node, ast.FunctionDef) and node.returns:
                node.returns = ast.BinOp(node.returns, ast.BitOr(), ast.Constant(None))
        return ast.unparse(ast.fix_missing_locations(parsed))

    with changed(tree.rglob("*.py"), rewritten):
        assert digests(tree) == before


def test_an_addition_that_nobody_uses_re_runs_nothing(tree: Path, before: dict[str, Any]) -> None:
    with changed(tree.rglob("*.py"), lambda text: text + "\n\ndef added_later(x):\n    return 2 * x\n"):
        assert digests(tree) == before


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[str, str]]]:
    """Stage → the functions of ours that compute in two small pipelines, as file and name."""
    called: dict[str, set[tuple[str, str]]] = {}
    for spec in (WAVES, SMALL_CONV):
        home = Home(tmp_path_factory.mktemp(spec.name))
        initialize(home)  # there is much to call for that, and nothing to see
        outputs: dict[str, StageOutput] = {}
        execution = Execution.of(home, spec)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(archives, "read", lambda *_: noise_pictures())
            for draw in (name for name, value in vars(figures).items() if inspect.isfunction(value)):
                patch.setattr(figures, draw, lambda *_, **__: None)
            for name in (GENERATE, TRAIN, EVALUATE):
                upstream = {stage: outputs[stage] for stage in STAGES[name].upstream}
                body = pkgutil.resolve_name(STAGES[name].task).fn
                with _calls() as calls:
                    outputs[name] = body(execution, upstream)
                called[name] = called.get(name, set()) | calls
    return called


@contextlib.contextmanager
def _calls() -> Iterator[set[tuple[str, str]]]:
    """The functions of ours that are called in a block, in any thread, but not by what only tells or keeps."""
    found: set[CodeType] = set()

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code not in found and _file(frame.f_code) and not _is_aside(frame):
            found.add(frame.f_code)

    threading.setprofile(note)
    sys.setprofile(note)
    named: set[tuple[str, str]] = set()
    try:
        yield named
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    named |= {(_file(called), called.co_qualname.partition(".<locals>")[0]) for called in found}


@cache
def _file(called: CodeType) -> str:
    """The file of a function of ours that is there to compute; empty for another, for a module, and for the body of a class."""
    path, name = Path(called.co_filename), called.co_qualname.partition(".<locals>")[0]
    if not called.co_flags & inspect.CO_OPTIMIZED or not any(path.is_relative_to(ROOT / package) for package in code.PACKAGES):
        return ""
    told_names = frozenset().union(*PRESENTATION.values())
    told = name in _checks(path) or name.rpartition(".")[2] in told_names or name.endswith("<lambda>")
    return "" if told else path.relative_to(ROOT).as_posix()


def _is_aside(frame: FrameType | None) -> bool:
    """Whether a function is one that only tells, draws or keeps, or was called by one."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.endswith(".figures") or any(f"{module}.".startswith(f"{name}.") for name in (*NOT_FOLLOWED, *TELLS)):
            return True
        frame = frame.f_back
    return False


@cache
def _checks(path: Path) -> set[str]:
    """What pydantic alone calls: a spec's values are what came of it."""
    pieces = pieces_of(path, ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    decorated = re.findall(r"@model_(?:validator|serializer).*\n(?: +@.*\n)* +def (\w+)", path.read_text())
    hinted = set().union(*(piece.typed for piece in pieces), *(piece.names for piece in pieces if "Annotated" in piece.names))
    owners = {piece.name for piece in pieces if piece.kind == "class"}
    return hinted | {f"{owner}.{name}" for owner in owners for name in decorated}


def test_every_function_that_a_stage_calls_counts(executed: dict[str, set[tuple[str, str]]]) -> None:
    """Nothing that computes is missing: what ran in a small pipeline, apart from what tells, keeps or checks, is covered."""
    missing = set()
    for name, calls in executed.items():
        covered = code.definitions(entries(name, WAVES, SMALL_CONV), STAGES[name].follows)
        called = {call for call in calls if not call[1].endswith(".refusal")}  # which methods there are is in the slice
        missing |= {f"{name}: {file} {function}" for file, function in called if function not in covered.get(file, ())}
        assert len(calls) > 10
    of_another_algorithm = {f"{name}: metaopt_core/methods/solved.py Solved.refusal" for name in ("train", "evaluate")}
    # their values are in the slice: the seed, and the algorithm that rules out a method
    assert missing <= {"generate: metaopt_core/spec/resolved.py Resolved.data_seed"} | of_another_algorithm
