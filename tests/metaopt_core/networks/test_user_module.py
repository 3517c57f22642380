"""Networks of the user's own: found, tried out, a part of a stage's identity, trained and handed on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from metaopt_core.distributions.batch import Episode
from metaopt_core.errors import UserError
from metaopt_core.meta.learner import Learner
from metaopt_core.networks.network import Params
from metaopt_core.networks.user_module import user_module
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import identities
from metaopt_core.pipeline.store import Store
from metaopt_core.spec import user_source
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking.saving import save
from tests.made_outputs import shape_of, sinusoid_spec
from tests.small import all_held_out, setting_of, train_all

STRANGE = "tests.own_nets:Strange"


def spec_of(path: str, **arguments: Any) -> PipelineSpec:
    model = {"name": "module", "path": path, "arguments": arguments}
    train = {"model": model, "iterations": 60, "meta_batch_size": 10, "shots": 5, "queries": 5, "outer": {"lr": 0.01}}
    return sinusoid_spec("own", train=train | {"validation": {"every": 30, "steps": 1}})


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        (STRANGE, {"kind": "statistics"}, r"norm \(BatchNorm1d\): it keeps statistics.*expected track_running_stats=False"),
        (STRANGE, {"kind": "random"}, r"drop \(Dropout\): it draws random numbers"),
        (STRANGE, {"kind": "branch"}, r"what it does depends on values.*expected torch.where"),
        (STRANGE, {"kind": "count"}, r"the buffer count changes as it runs"),
        (STRANGE, {"kind": "attention"}, r"expected operations that have them \(for attention"),
        (STRANGE, {"kind": "outputs"}, r"from \[3, 1\] it makes \[3, 3\]: expected \[3, 2\]"),
        (STRANGE, {"kind": "shape"}, r"the network can't be run for tasks together: .*own_nets.py:\d+: RuntimeError"),
        (STRANGE, {"kind": "constructor"}, r"can't be made: .*own_nets.py:\d+: OSError: no weights"),
        (STRANGE, {"kind": "frozen"}, r"the parameter linear.bias takes no gradient"),
        (STRANGE, {"knd": 1}, r"can't be made: TypeError: .*unexpected keyword argument 'knd'"),
        (STRANGE, {"outputs": 1}, r"outputs: given by the tasks: remove it"),
        ("tests.own_nets:Lazy", {}, r"the parameter hidden.weight is of a lazy layer.*expected a layer with its size"),
        ("tests.own_nets:Unused", {"all": True}, r"its outputs depend on no parameter"),
        ("tests.own_nets:Forgetful", {}, r"the class takes no argument `outputs`"),
        ("tests.own_nets:Missing", {}, r"tests.own_nets has no Missing: expected module:Class"),
        ("tests.own_nets:nn", {}, r"tests.own_nets has nn, which is no subclass of torch.nn.Module"),
        ("tests.no_nets:Net", {}, r"no module tests.no_nets in .* or elsewhere on Python's path"),
        ("math:Net", {}, r"no module math in"),
    ],
)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_what_can_not_be_is_one_error_that_names_place_and_remedy(path: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^train.model.*{message}"):
        user_module(path, arguments, (1,), 2)


@pytest.mark.parametrize("transductive", [False, True])
def test_whether_it_is_transductive_is_found_out(transductive: bool) -> None:
    assert user_module("tests.own_nets:Pictures", {"batch": transductive}, (1, 9, 9), 5).transductive == transductive


def test_the_head_is_what_follows_the_number_of_outputs() -> None:
    assert user_module("tests.own_nets:Pictures", {}, (1, 28, 28), 5).head == ("head.weight", "head.bias")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as that of a pipelines file, with the package `own_a` and the module `own_b`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_a").mkdir()
    (tmp_path / "own_a/__init__.py").write_text("")
    (tmp_path / "own_a/nets.py").write_text("import torch\nimport own_b\nfrom .blocks import Block\n1/0\n")
    (tmp_path / "own_a/blocks.py").write_text("class Block: ...\n")
    (tmp_path / "own_a/unused.py").write_text("")
    (tmp_path / "own_b.py").write_text("")
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_sources_are_found_without_running_them() -> None:
    assert list(user_source.sources("own_a.nets:Net")) == ["own_a/__init__.py", "own_a/blocks.py", "own_a/nets.py", "own_b.py"]
    assert list(user_source.sources("torch.nn.modules.module:Module")) == ["torch/nn/modules/module.py"]


def test_source_that_is_no_python_is_named_with_its_line(folder: Path) -> None:
    (folder / "own_b.py").write_text("a = 1\nb = = 2\n")
    with pytest.raises(UserError, match=r"own_b.py:2: not valid Python: invalid syntax"):
        user_source.sources("own_a.nets:Net")


@pytest.mark.parametrize("file", ["own_a/nets.py", "own_a/blocks.py", "own_b.py"])
def test_changed_source_concerns_train_and_evaluate_and_what_follows(folder: Path, file: str) -> None:
    spec, store = spec_of("own_a.nets:Net"), Store(Home(folder / "home"))
    before = identities(spec)
    store.remember(spec.name, before["train"])
    (folder / file).write_text("# changed\n" + (folder / file).read_text())
    assert identities(spec) == before
    (folder / file).write_text("changed = 1\n" + (folder / file).read_text())
    after = identities(spec)
    assert {name for name in before if before[name].fingerprint != after[name].fingerprint} == {"train", "evaluate", "log"}
    assert store.why(spec.name, after["train"]) == [f"changed code {file}"]
    (folder / "own_a/unused.py").write_text("# changed")
    assert identities(spec) == after


def test_it_trains_to_one_result(tmp_path: Path) -> None:
    spec = spec_of("tests.own_nets:Waves", width=12)
    setting = setting_of(spec, tmp_path)
    trained = [train_all(setting, tmp_path / name)["maml"].params for name in ("first", "second")]
    assert list(trained[0]) == ["hidden.weight", "hidden.bias", "out.weight", "out.bias"]  # the frequencies are constants
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
    learner, tasks = Learner.from_spec(spec, setting.shape), all_held_out(setting.distribution, "test", Episode(None, 5, 20))

    def loss(params: Params) -> float:
        return learner.curves(params, tasks, 1).loss[:, 1].mean().item()

    assert loss(trained[0]) < 0.9 * loss(learner.network.init(spec.seed))


def test_the_logged_model_brings_its_source(folder: Path) -> None:
    nets = Path(__file__).parents[2] / "own_nets.py"
    (folder / "own_c.py").write_text(nets.read_text())
    spec = spec_of("own_c:Waves")
    shape = shape_of(spec)
    save_file(Learner.from_spec(spec, shape).network.init(0), folder / "parameters.safetensors")
    save(spec, shape, folder / "parameters.safetensors", folder / "model")
    assert (folder / "model/code/own_c.py").read_text() == nets.read_text()
