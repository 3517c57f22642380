"""The user's torch.nn.Module as a network: one functional call, batched over tasks by torch.vmap.

What can't be batched (layers that keep statistics or draw random numbers, control flow that depends on data) is found in a trial
run before any training, and reported with its layer.
"""

import copy
import importlib
import inspect
import json
import threading
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import UninitializedParameter

from metaopt_core.distributions.random import Stream, uniform
from metaopt_core.errors import UserError
from metaopt_core.networks.network import ACTIVATIONS_AT_ONCE
from metaopt_core.spec import user_source

_REMEDIES = {
    "Batch norm got a batched tensor": "it keeps statistics, which tasks can't share: expected track_running_stats=False, which "
    "normalizes by the batch at hand, or GroupNorm",
    "running_mean": "it keeps statistics, which tasks can't share: expected track_running_stats=False, or GroupNorm",
    "random operation": "it draws random numbers, and every number is to be a function of the seed: expected a network without",
    "data-dependent control flow": "what it does depends on values, and tasks are computed together: expected torch.where "
    "instead of if",
    ".item()": "what it does depends on values, and tasks are computed together: expected operations on tensors alone",
    "derivative for": "MAML takes second derivatives: expected operations that have them (for attention: "
    "torch.nn.attention.sdpa_kernel(SDPBackend.MATH))",
    "does not require grad": "its outputs depend on no parameter: expected some to learn",
    "inplace arithmetic": "it changes a tensor that tasks share: expected operations that make new ones",
}


def user_module(path: str, arguments: Mapping[str, Any], input_shape: tuple[int, ...], outputs: int) -> "UserModule":
    """The network of an import path `module:Class`, after a trial run.

    The class gets `arguments`, `outputs` (a number), and `input_shape` if it takes it. Its forward maps [examples, *input_shape] to
    [examples, outputs]. Raises UserError for anything that doesn't work.
    """
    return _made(path, json.dumps(arguments, sort_keys=True), input_shape, outputs)


@cache
def _made(path: str, arguments: str, input_shape: tuple[int, ...], outputs: int) -> "UserModule":
    return UserModule(path, json.loads(arguments), input_shape, outputs)


class UserModule:
    """See `user_module`. Parameters have the module's own names and shapes; buffers are constants."""

    small = False
    looped = False
    per_step: frozenset[str] = frozenset()

    def __init__(self, path: str, arguments: dict[str, Any], input_shape: tuple[int, ...], outputs: int):
        self._path, self._arguments, self._input_shape, self.outputs = path, arguments, input_shape, outputs
        self._class = _class(path)
        self._module = self._instance(0, outputs)
        self._copies = threading.local()  # a functional call inserts the parameters into the module while it runs
        for name, value in self._module.named_parameters():
            if isinstance(value, UninitializedParameter):
                raise self._mistake(
                    f"the parameter {name} is of a lazy layer, which has no size before it has run: expected a layer with its size "
                    "(the class is told `input_shape` if it takes it)"
                )
            if not value.requires_grad:
                raise self._mistake(f"the parameter {name} takes no gradient, and all are to be learned: expected a buffer")
        self.transductive = False
        self.head = self._last_layer()
        self.examples_at_once = max(1, ACTIVATIONS_AT_ONCE // self._try())

    def check(self, shape: torch.Size) -> None:
        if shape != self._input_shape:
            raise ValueError(f"inputs are {list(shape)}: expected {list(self._input_shape)}")

    def init(self, seed: int, stream: Stream = Stream.PARAMETERS) -> dict[str, Tensor]:
        """The parameters that the class itself starts with, where PyTorch's generator is seeded by (seed, stream)."""
        number = int(uniform(seed, stream, 0, 1, 1)[0, 0] * 2**53)
        named = self._instance(number, self.outputs).named_parameters()
        return {name: value.detach().clone().float().contiguous() for name, value in named}

    def __call__(self, params: Mapping[str, Tensor], x: Tensor, weight: Tensor | None = None) -> Tensor:
        module = self._of_this_thread()
        if weight is None or not self.transductive:
            return self._apply(module, params, x)

        def of_some(tasks: Tensor, inputs: Tensor) -> Tensor:
            return self._apply(module, {name: value[tasks] for name, value in params.items()}, inputs)

        return self._without_padding(of_some, x, weight > 0, self.outputs)

    @cached_property
    def width(self) -> int:
        return int(self._last.in_features)

    def features(self, params: Mapping[str, Tensor], x: Tensor, weight: Tensor | None = None) -> Tensor:
        module, place = self._of_this_thread(), self.head[0].rpartition(".")[0]
        values = {name: x.new_zeros(value.shape) for name, value in self._last_parameters.items()}
        values |= {**self._constants(module, x), **params}

        def of_task(inputs: Tensor) -> Tensor:
            taken = list[Tensor]()
            hook = module.get_submodule(place).register_forward_pre_hook(lambda _, given: taken.append(given[0]))
            try:
                functional_call(module, values, (inputs,))
            finally:
                hook.remove()
            return taken[-1]

        if not self.transductive:
            return of_task(x.flatten(0, 1)).view(*x.shape[:2], -1)
        if weight is None:
            return torch.vmap(of_task)(x)
        return self._without_padding(lambda _, inputs: torch.vmap(of_task)(inputs), x, weight > 0, self.width)

    def last(self, params: Mapping[str, Tensor], features: Tensor) -> Tensor:
        place = self.head[0].rpartition(".")[0]
        return F.linear(features, params[f"{place}.weight"], params.get(f"{place}.bias"))

    @cached_property
    def _last(self) -> nn.Linear:
        """The last layer. Raises UserError unless it is a linear one whose outputs are the network's."""
        layer = self._module.get_submodule(self.head[0].rpartition(".")[0])
        if not isinstance(layer, nn.Linear) or len(self._last_parameters) != len(self.head):
            raise self._mistake(
                f"its last parameters are {', '.join(self.head)}: expected those of one torch.nn.Linear, to be solved for"
            )
        made = list[Tensor]()
        hook = layer.register_forward_hook(lambda _, __, result: made.append(result))
        try:
            x = torch.rand(3, *self._input_shape, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                outputs = self._module(x)
        finally:
            hook.remove()
        if len(made) != 1 or not torch.equal(made[0], outputs):
            raise self._mistake("something follows its last linear layer: expected that layer's outputs, to solve for its weights")
        return layer

    @cached_property
    def _last_parameters(self) -> dict[str, Tensor]:
        place = self.head[0].rpartition(".")[0]
        return {f"{place}.{name}": value for name, value in self._module.get_submodule(place).named_parameters()}

    def _of_this_thread(self) -> nn.Module:
        """A functional call puts the parameters into the module while it runs, so each thread has a copy."""
        if not hasattr(self._copies, "module"):
            self._copies.module = copy.deepcopy(self._module)
        module: nn.Module = self._copies.module
        return module

    def _without_padding(self, apply: Callable[[Tensor, Tensor], Tensor], x: Tensor, counts: Tensor, width: int) -> Tensor:
        """`apply` to the examples that count [tasks, examples], and zeros for the others, which the module doesn't see.

        apply: (numbers of tasks, their inputs) → [those tasks, examples, width]. A module knows no weights, so all examples that
        count have equal weight. Tasks with equally many are computed together.
        """
        number, places = counts.sum(1), counts.logical_not().sort(dim=1, stable=True).indices
        outputs = x.new_zeros(*x.shape[:2], width)
        for count in number.unique().tolist():
            tasks = (number == count).nonzero()[:, 0]
            where = tasks[:, None], places[tasks, :count]
            if count:
                outputs = outputs.index_put(where, apply(tasks, x[where]).to(outputs.dtype))
        return outputs

    def _apply(self, module: nn.Module, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        constants = self._constants(module, x)

        def of_task(own: dict[str, Tensor], inputs: Tensor) -> Tensor:
            return functional_call(module, constants | own, (inputs,))  # type: ignore[no-any-return]

        return torch.vmap(of_task)(dict(params), x)

    def _constants(self, module: nn.Module, x: Tensor) -> dict[str, Tensor]:
        """The module's buffers on the device of x, and of its type."""
        return {name: value.to(x.device, x.dtype if value.is_floating_point() else None) for name, value in module.named_buffers()}

    def _instance(self, number: int, outputs: int) -> nn.Module:
        """A new instance, whose initialization is a function of the number."""
        takes = inspect.signature(self._class).parameters
        given = {"outputs": outputs} | ({"input_shape": self._input_shape} if "input_shape" in takes else {})
        if "outputs" not in takes and not any(one.kind is one.VAR_KEYWORD for one in takes.values()):
            raise self._mistake("the class takes no argument `outputs`: expected one, the number of the network's outputs")
        if twice := given.keys() & self._arguments.keys():
            raise UserError(f"train.model.arguments.{min(twice)}: given by the tasks: remove it")
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(number)
            try:
                made: nn.Module = self._class(**self._arguments, **given)
                return made
            except Exception as error:
                raise UserError(f"train.model: {self._path} can't be made: {user_source.raised(error)}") from error

    def _last_layer(self) -> tuple[str, ...]:
        """The parameters whose shape depends on the number of outputs, else those of the last layer."""
        more = dict(self._instance(0, self.outputs + 1).named_parameters())
        mine = dict(self._module.named_parameters())
        following = tuple(name for name, value in mine.items() if name not in more or more[name].shape != value.shape)
        if not mine:
            raise self._mistake("it has no parameters: expected some to learn")
        return following or tuple(name for name in mine if name.rpartition(".")[0] == list(mine)[-1].rpartition(".")[0])

    def _try(self) -> int:
        """Run two tasks and their first and second derivatives once, and one example of each by itself.

        Returns the number of activations of an example.
        """
        tasks, examples = 2, 3
        module, inside, counted = copy.deepcopy(self._module), ["the network"], list[int]()

        def enter(name: str, layer: nn.Module) -> None:
            inside.append(f"{name} ({type(layer).__name__})")

        def leave(layer: nn.Module, result: Any) -> None:
            inside.pop()
            if isinstance(result, Tensor) and result.dim() and not any(layer.children()):
                counted.append(result.numel() // len(result))

        for name, layer in module.named_modules():
            if name:
                layer.register_forward_pre_hook(lambda layer, _, name=name: enter(name, layer))
                layer.register_forward_hook(lambda layer, _, result: leave(layer, result))
        constants = {name: value.clone() for name, value in module.named_buffers()}
        params = {name: torch.stack([value.detach().float()] * tasks).requires_grad_() for name, value in module.named_parameters()}
        x = torch.rand(tasks, examples, *self._input_shape, generator=torch.Generator().manual_seed(0))
        try:
            result: Any = self._apply(module, params, x)
            if not isinstance(result, Tensor) or result.shape != (tasks, examples, self.outputs):
                shape = list(result.shape[1:]) if isinstance(result, Tensor) else f"a {type(result).__name__}"
                raise self._mistake(
                    f"from [{examples}, {', '.join(map(str, self._input_shape))}] it makes {shape}: expected "
                    f"[{examples}, {self.outputs}], the outputs for each example"
                )
            alone = self._apply(module, params, x[:, :1])
            self.transductive = not torch.allclose(alone, result[:, :1], rtol=1e-3, atol=1e-5)
            leaves = list(params.values())
            first = torch.autograd.grad(result.square().sum(), leaves, create_graph=True, materialize_grads=True)
            if curved := [gradient.square().sum() for gradient in first if gradient.requires_grad]:
                torch.autograd.grad(torch.stack(curved).sum(), leaves, materialize_grads=True)
        except UserError:
            raise
        except Exception as error:
            remedy = next((remedy for sign, remedy in _REMEDIES.items() if sign in str(error)), None)
            raised = user_source.raised(error)
            told = f"{inside[-1]}: {remedy}" if remedy else f"{inside[-1]} can't be run for tasks together: {raised}"
            raise self._mistake(told) from error
        changed = [name for name, value in module.named_buffers() if not torch.equal(value, constants[name])]
        if changed:
            raise self._mistake(f"the buffer {changed[0]} changes as it runs, and tasks can't share it: expected a constant")
        return max(1, sum(counted) // 2)

    def _mistake(self, message: str) -> UserError:
        return UserError(f"train.model: {self._path}: {message}")


def _class(path: str) -> type[nn.Module]:
    """The class that an import path names. Raises UserError if it can't be imported or is not a network."""
    user_source.sources(path)  # raises UserError if there is no such module
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        raise UserError(f"train.model.path: {module} can't be imported: {user_source.raised(error)}") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        kind = f"no {name}" if found is None else f"{name}, which is no subclass of torch.nn.Module"
        raise UserError(f"train.model.path: {module} has {kind}: expected module:Class, as in mypackage.nets:Net")
    return found
