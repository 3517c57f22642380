# ruff: noqa: E501
"""Reading pipelines: `extends`, `--set`, and the way through Prefect's API."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from metaopt_core.distributions.omniglot import OmniglotSpec
from metaopt_core.spec.loader import SpecError, load
from metaopt_core.spec.networks import Conv4Spec, MLPSpec
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.schedule import IntervalSchedule

SHIPPED = Path(__file__).resolve().parents[3] / "pipelines.yaml"

BASE = """\
pipelines:
  base:
    generate:
      distribution: sinusoid
    train:
      model:
        name: mlp
        hidden: [8, 8]
      iterations: 100
      shots: 5
      queries: 10
      outer: {lr: 0.5, clip_norm: 1}
    schedule:
      cron: 0 3 * * *
      timezone: Europe/Berlin
"""
SHIPPED_NAMES = [
    "sinusoid",
    "sinusoid-quick",
    "sinusoid-fomaml",
    "sinusoid-reptile",
    "sinusoid-metasgd",
    "sinusoid-tuned",
    "assays",
    "kinases",
    "schools",
    "omniglot-5w1s",
    "omniglot-5w1s-maml",
    "omniglot-5w1s-fomaml",
    "omniglot-5w1s-anil",
    "omniglot-5w1s-mamlpp",
    "omniglot-5w1s-full",
    "omniglot-5w1s-paper",
    "omniglot-alphabets",
    "omniglot-20w1s",
    "omniglot-20w1s-maml",
    "omniglot-20w1s-fomaml",
    "omniglot-20w1s-anil",
    "omniglot-20w1s-mamlpp",
    "omniglot-20w1s-paper",
    "groceries",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str, **options: Sequence[str]) -> dict[str, PipelineSpec]:
    Path("pipelines.yaml").write_text(text)
    return load(Path("pipelines.yaml"), options)


def complaints(text: str, **options: Sequence[str]) -> list[str]:
    with pytest.raises(SpecError) as error:
        read(text, **options)
    return str(error.value).split("\n")


# --- the text of a file ---


@pytest.mark.parametrize("text", [r'"\ud83d\ude42"', r'"\U0001F642"', "🙂"])
def test_character_beyond_the_first_65536_may_be_written_in_every_way(folder: Path, text: str) -> None:
    assert read(f"{BASE}    description: {text}\n")["base"].description == "🙂"


def test_file_may_begin_with_a_byte_order_mark(folder: Path) -> None:
    assert list(read("\ufeff" + BASE)) == ["base"]


# --- the shipped file ---


def test_shipped_pipelines_are_right_and_hold_the_protocols_of_the_paper() -> None:
    specs = load(SHIPPED)
    assert list(specs) == SHIPPED_NAMES
    sinusoid, quick, tuned = (specs[name] for name in ("sinusoid", "sinusoid-quick", "sinusoid-tuned"))
    five, alphabets, twenty = (specs[name] for name in ("omniglot-5w1s", "omniglot-alphabets", "omniglot-20w1s"))
    assert sinusoid.train.iterations == 70_000
    assert (sinusoid.train.shots, sinusoid.train.queries, sinusoid.train.meta_batch_size) == (10, 10, 25)
    assert (sinusoid.train.inner.lr, sinusoid.train.inner.steps, sinusoid.train.outer.lr) == (0.01, 1, 0.001)
    assert (sinusoid.evaluate_shots, sinusoid.evaluate_queries, sinusoid.evaluate.steps) == (5, 100, 10)
    assert (sinusoid.validation_shots, sinusoid.validation_queries, sinusoid.train.validation.steps) == (5, 100, 10)
    assert quick.train.iterations < 5000
    assert tuned.model_copy(update={"name": "sinusoid", "description": sinusoid.description, "sweep": None}) == sinusoid
    assert quick.train.model == sinusoid.train.model
    assert (five.train.ways, five.train.shots, five.train.queries, five.train.meta_batch_size) == (5, 1, 1, 32)
    assert (five.train.inner.lr, five.train.inner.steps, five.horizon) == (0.4, 1, 1)
    assert (twenty.train.ways, twenty.train.inner.lr, twenty.train.meta_batch_size) == (20, 0.4, 16)
    papers = [specs[f"omniglot-{ways}w1s-paper"] for ways in (5, 20)]
    assert [(spec.train.ways, spec.train.inner.lr, spec.train.inner.steps) for spec in papers] == [(5, 0.4, 1), (20, 0.1, 5)]
    assert [(spec.train.meta_batch_size, spec.horizon) for spec in papers] == [(32, 3), (16, 5)]
    assert {(spec.train.iterations, spec.train.outer.lr, spec.train.outer.schedule) for spec in papers} == {
        (60_000, 0.001, "constant")
    }
    assert {spec.train.reduction for spec in papers} == {"sum_over_ways"}
    assert (list(five.shifts), list(alphabets.shifts), twenty.shifts) == (["more-ways", "five-shots"], ["new-alphabets"], {})
    assert five.train.reduction == twenty.train.reduction == "mean"
    learned = {name: (spec.train.meta_gradient, spec.train.inner.learned_lr) for name, spec in specs.items()}
    assert learned["omniglot-5w1s"] == learned["omniglot-20w1s"] == learned["sinusoid-metasgd"] == ("exact", "per_parameter")
    assert learned["omniglot-20w1s-maml"] == learned["omniglot-5w1s-maml"] == learned["omniglot-5w1s-paper"] == ("exact", "none")
    assert learned["omniglot-5w1s-fomaml"] == learned["sinusoid-fomaml"] == ("first_order", "none")


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_plain_json_form_of_a_pipeline_reads_as_the_same(name: str) -> None:
    spec = load(SHIPPED)[name]
    plain = spec.model_dump(mode="json")
    assert PipelineSpec.model_validate(plain) == spec
    assert PipelineSpec.model_validate_json(json.dumps(plain)) == spec


@pytest.mark.parametrize("schedule", [{"cron": "0 3 * * *", "timezone": "Europe/Berlin"}, {"every": "6h"}, None])
def test_plain_json_form_of_a_schedule_reads_as_the_same(schedule: Any) -> None:
    plain = load(SHIPPED)["sinusoid"].model_dump(mode="json") | {"schedule": schedule}
    spec = PipelineSpec.model_validate(plain)
    assert spec.model_dump(mode="json")["schedule"] == schedule


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.outer.lrr", 0.1),
        ("train.outer.lr", -1),
        ("train.outer.lr", "0.1"),
        ("train.iterations", 10.0),
        ("generate.amplitude", [5, 1]),
        ("train.model.name", "mpl"),
        ("train.ways", 5),
        ("evaluate.shots", 21),
        ("schedule", {"every": "soon"}),
        ("name", "Not a name"),
    ],
)
def test_plain_json_form_meets_the_same_refusals(path: str, value: Any) -> None:
    plain = load(SHIPPED)["sinusoid"].model_dump(mode="json")
    *blocks, key = path.split(".")
    block = plain
    for name in blocks:
        block = block[name]
    block[key] = value
    with pytest.raises(ValidationError):
        PipelineSpec.model_validate(plain)
    with pytest.raises(ValidationError):
        PipelineSpec.model_validate_json(json.dumps(plain))


def test_loading_is_quick_and_imports_no_heavy_library() -> None:
    code = (
        "import sys, time, pathlib; start = time.process_time()\n"
        "from metaopt_core.spec.loader import load\n"
        f"load(pathlib.Path({str(SHIPPED)!r}))\n"
        "seconds = time.process_time() - start\n"
        "heavy = {'torch', 'prefect', 'mlflow', 'pandas', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print(seconds)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SHIPPED.parent, check=True)
    assert float(run.stdout) < 2  # seconds of CPU, whatever else the machine does; a quarter on an idle one


# --- extends ---


def test_extended_mappings_are_merged_and_everything_else_is_replaced(folder: Path) -> None:
    specs = read(BASE + "  child: {extends: base, train: {model: {hidden: [4]}, outer: {lr: 0.1}}}\n")
    child, base = specs["child"], specs["base"]
    assert child.train.model == MLPSpec(name="mlp", hidden=(4,))
    assert (child.train.outer.lr, child.train.outer.clip_norm) == (0.1, 1)
    assert (child.name, child.train.iterations, child.schedule) == ("child", base.train.iterations, base.schedule)
    assert (base.train.model, base.train.outer.lr) == (MLPSpec(name="mlp", hidden=(8, 8)), 0.5)


def test_extends_may_name_a_later_pipeline_and_go_over_several(folder: Path) -> None:
    first = "pipelines:\n  c: {extends: b, seed: 3}\n  b: {extends: base, description: b, seed: 2}\n"
    specs = read(first + BASE.removeprefix("pipelines:\n"))
    assert list(specs) == ["c", "b", "base"]
    assert (specs["c"].seed, specs["c"].description, specs["c"].train) == (3, "b", specs["base"].train)


def test_block_of_another_kind_replaces_the_extended_one(folder: Path) -> None:
    specs = read(BASE + "  child: {extends: base, schedule: {every: 6h}}\n")
    assert specs["child"].schedule == IntervalSchedule(every="6h")
    specs = read(
        BASE
        + "  child: {extends: base, generate: {distribution: omniglot}, train: {model: {name: conv4}, ways: 5, shots: 1, queries: 1}}\n"
    )
    assert specs["child"].train.model == Conv4Spec(name="conv4")


def test_normalization_may_still_be_called_batch_norm(folder: Path) -> None:
    model = "{name: conv4, batch_norm: transductive}"
    letters = f"  letters: {{extends: base, generate: {{distribution: omniglot}}, train: {{model: {model}, ways: 5, shots: 1}}}}\n"
    specs = read(BASE + letters + "  alone: {extends: letters, train: {model: {normalization: layer}}}\n")
    assert specs["letters"].train.model == Conv4Spec(name="conv4", normalization="transductive")
    assert specs["alone"].train.model == Conv4Spec(name="conv4", normalization="layer")


def test_null_removes_what_was_extended(folder: Path) -> None:
    specs = read(BASE + "  child: {extends: base, schedule: null, train: {outer: {clip_norm: null}}}\n")
    assert specs["child"].schedule is None
    assert specs["child"].train.outer.clip_norm is None


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ("lr: 0.5", "lr: -1", "pipelines.yaml:12:19: base.train.outer.lr: expected a number greater than 0, found -1"),
        ("clip_norm", "clipnorm", "pipelines.yaml:12:24: base.train.outer.clipnorm: unknown key, did you mean clip_norm?"),
        (
            "      shots: 5\n",
            "",
            "pipelines.yaml:5:5: base.train.shots: missing, expected a whole number of at least 1 or a mapping with keys such as low, high",
        ),
        (
            "name: mlp",
            "name: mpl",
            'pipelines.yaml:7:15: base.train.model.name: expected mlp, conv4, resnet12 or module, found "mpl", did you mean mlp?',
        ),
        (
            "shots: 5",
            "shots: 30",
            "pipelines.yaml:10:7: base.train.shots: 30 shots, but held-out tasks store 20 support points: expected at most that many, "
            "or a larger generate.support_points",
        ),
    ],
)
def test_inherited_mistake_is_named_once_where_it_was_made(folder: Path, right: str, wrong: str, line: str) -> None:
    text = BASE.replace(right, wrong)
    children = "  child: {extends: base, train: {iterations: 3}}\n  grandchild: {extends: child, train: {queries: 3}}\n"
    assert complaints(text + children) == [line]


def test_same_mistake_made_twice_is_named_twice(folder: Path) -> None:
    text = BASE.replace("lr: 0.5", "lr: -1") + "  child: {extends: base, train: {outer: {lr: -1}}}\n"
    assert complaints(text) == [
        "pipelines.yaml:12:19: base.train.outer.lr: expected a number greater than 0, found -1",
        "pipelines.yaml:16:46: child.train.outer.lr: expected a number greater than 0, found -1",
    ]


def test_combination_that_a_child_makes_impossible_is_named_in_the_child(folder: Path) -> None:
    assert complaints(BASE + "  child:\n    extends: base\n    generate:\n      support_points: 4\n") == [
        "pipelines.yaml:16:3: child.train.shots: 5 shots, but held-out tasks store 4 support points: expected at most that many, "
        "or a larger generate.support_points"
    ]


def test_unknown_pipeline_to_extend(folder: Path) -> None:
    assert complaints(BASE + "  other: {extends: bsae, train: {shots: 0}}\n") == [
        "pipelines.yaml:16:20: other.extends: no pipeline bsae in this file, did you mean base?",
        "pipelines.yaml:16:41: other.train.shots: expected a whole number of at least 1, or two as in {low: 4, high: 50}, found 0",
    ]
    assert complaints(BASE + "  child: {extends: base}\n  other: {extends: bsae}\n") == [
        "pipelines.yaml:17:20: other.extends: no pipeline bsae in this file, did you mean base? There are base and child"
    ]
    assert complaints(BASE + "  child: {extends: base}\n  other: {extends: zzz}\n") == [
        "pipelines.yaml:17:20: other.extends: no pipeline zzz in this file, expected base or child; `include: FILE` at the top adds "
        "those of another file"
    ]


def test_circle_is_named_once_and_other_mistakes_with_it(folder: Path) -> None:
    assert complaints(BASE + "  a: {extends: b}\n  b: {extends: c, seed: x}\n  c: {extends: a}\n  d: {extends: a, sed: 1}\n") == [
        "pipelines.yaml:16:16: a.extends: a circle (a extends b extends c extends a), expected a pipeline that does not extend this one",
        'pipelines.yaml:17:25: b.seed: expected a whole number from 0 to 9223372036854775807, found "x"',
        "pipelines.yaml:19:19: d.sed: unknown key, did you mean seed?",
    ]


def test_extending_a_pipeline_that_cannot_be_read_is_no_mistake_of_its_own(folder: Path) -> None:
    assert complaints("pipelines:\n  base: 3\n  child: {extends: base}\n") == [
        "pipelines.yaml:2:9: base: expected a mapping with keys such as extends, generate, train, found 3"
    ]


# --- --set ---


def test_options_change_one_pipeline_after_extends(folder: Path) -> None:
    text = BASE + "  child: {extends: base, train: {iterations: 7}}\n  grandchild: {extends: child}\n"
    specs = read(text, child=["train.iterations=9", "train.outer.lr=1e-3", "train.model.hidden=[1, 2]", "description=on"])
    child = specs["child"]
    assert (child.train.iterations, child.train.outer.lr, child.description) == (9, 0.001, "on")
    assert child.train.model == MLPSpec(name="mlp", hidden=(1, 2))
    assert (child.train.outer.clip_norm, child.train.shots) == (1, 5)
    assert (specs["base"].train.iterations, specs["grandchild"].train.iterations) == (100, 7)


@pytest.mark.parametrize(
    ("options", "path", "value"),
    [
        (["seed=1", "seed=2"], "seed", 2),
        (["log.register_as=waves"], "log.register_as", "waves"),
        (['log.register_as="3"'], "log.register_as", "3"),
        (["train.validation.steps=3"], "train.validation.steps", 3),
        (["train.outer={lr: 0.25}"], "train.outer.clip_norm", 1),
        (["schedule="], "schedule", None),
        (["schedule.every=6h"], "schedule.every", "6h"),
        (["description=a = b"], "description", "a = b"),
        ([" seed = 3"], "seed", 3),
    ],
)
def test_option_sets_a_value(folder: Path, options: list[str], path: str, value: Any) -> None:
    found: Any = read(BASE, base=options)["base"]
    for key in path.split("."):
        found = getattr(found, key)
    assert found == value


def test_options_may_choose_another_kind_in_any_order(folder: Path) -> None:
    options = ["train.model.filters=32", "train.model.name=conv4", "generate.distribution=omniglot", "train.ways=5"]
    for order in (options, options[::-1]):
        assert read(BASE, base=[*order, "train.shots=1", "train.queries=1"])["base"].train.model == Conv4Spec(
            name="conv4", filters=32
        )


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (["train.outer.lrr=0.002"], ["--set train.outer.lrr=0.002: train.outer.lrr: unknown key, did you mean lr?"]),
        (["train.outr.lr=0.002"], ["--set train.outr.lr=0.002: train.outr: unknown key, did you mean outer?"]),
        (["train.outer.lr=-1"], ["--set train.outer.lr=-1: train.outer.lr: expected a number greater than 0, found -1"]),
        (["train.outer.lr=fast"], ['--set train.outer.lr=fast: train.outer.lr: expected a number greater than 0, found "fast"']),
        (["train.outer.lr="], ["--set train.outer.lr=: train.outer.lr: expected a number greater than 0, found nothing"]),
        (["train.outer.lr"], ["--set train.outer.lr: expected KEY=VALUE, as in train.outer.lr=0.002"]),
        (["=3"], ["--set =3: expected KEY=VALUE, as in train.outer.lr=0.002"]),
        (["train..lr=3"], ["--set train..lr=3: expected KEY=VALUE, as in train.outer.lr=0.002"]),
        (["extends=other"], ["--set extends=other: extends: cannot be set by an option, expected it in the file"]),
        (["seed=[1, 2"], ["--set seed=[1, 2: seed: the list is not closed, expected , or ]"]),
        (["seed=*one"], ["--set seed=*one: seed: *one is an alias, expected the value itself (`extends` shares settings)"]),
        (["schedule.cron=*/5 * * * *"], ["--set schedule.cron=*/5 * * * *: schedule.cron: a value cannot begin with * or &, expected it between quotes"]),
        (["train.iterations.most=3"], ["--set train.iterations.most=3: train.iterations: expected a whole number of at least 1, found a mapping with most"]),
        (["a.b.c=3"], ["--set a.b.c=3: a: unknown key, expected extends, description, seed, seeds, splits, device, generate, train, evaluate, log, sweep or schedule"]),
        (["train.outer={lr: 1, lr: 2}"], ["--set train.outer={lr: 1, lr: 2}: train.outer.lr: duplicate key, expected it once: it is already set"]),
        (["train.model.name=mpl"], ['--set train.model.name=mpl: train.model.name: expected mlp, conv4, resnet12 or module, found "mpl", did you mean mlp?']),
        (["train.ways=5"], ["--set train.ways=5: train.ways: 5 ways, but sinusoids are regression tasks and have no classes: remove it"]),
        (
            ["generate.support_points=4"],
            [
                "--set generate.support_points=4: train.shots: 5 shots, but held-out tasks store 4 support points: expected at most that "
                "many, or a larger generate.support_points"
            ],
        ),
        (["seed=-1", "device=gpu"], [
            "--set seed=-1: seed: expected a whole number from 0 to 9223372036854775807, found -1",
            '--set device=gpu: device: expected auto, cpu or cuda, found "gpu", did you mean cuda?',
        ]),
    ],
)  # fmt: skip
def test_option_meets_the_rules_of_the_file(folder: Path, options: list[str], lines: list[str]) -> None:
    assert complaints(BASE, base=options) == lines


def test_options_are_complained_about_after_the_file(folder: Path) -> None:
    assert complaints(BASE.replace("hidden", "hiden"), base=["seed=-1"]) == [
        "pipelines.yaml:8:9: base.train.model.hiden: unknown key, did you mean hidden?",
        "--set seed=-1: seed: expected a whole number from 0 to 9223372036854775807, found -1",
    ]


def test_option_for_an_unknown_pipeline(folder: Path) -> None:
    assert complaints(BASE, bsae=["seed=1"]) == ["--set seed=1: no pipeline bsae, did you mean base?"]


def test_a_relative_folder_of_data_lies_beside_the_file(tmp_path: Path) -> None:
    file = tmp_path / "pipelines.yaml"
    file.write_text(SHIPPED.read_text().replace("# folder: data/omniglot", "folder: data/omniglot"))
    generate = load(file)["omniglot-20w1s"].generate
    assert isinstance(generate, OmniglotSpec)
    assert generate.folder == str(tmp_path / "data" / "omniglot")
