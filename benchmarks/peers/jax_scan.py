"""JAX with optax: everything under `jit`, `vmap` over the tasks, `lax.scan` over inner steps and over meta-steps.

The tasks of the meta-steps of one call are drawn together and passed as one array. Only for the multilayer perceptron: XLA's
grouped convolutions on a CPU take up to a minute a step.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
import torch

from benchmarks.setting import Setting
from benchmarks.workloads import OUTER_LR
from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.networks.network import Params

Arrays = Any
"""A dictionary or a tuple of JAX's arrays."""


class JaxScan:
    threads: tuple[int, ...] = ()

    def __init__(self, setting: Setting, dtype: torch.dtype = torch.float32):
        meta_step = setting.meta_step
        if meta_step.ways:
            raise ValueError("JAX is a contender only on the sinusoid")
        self._setting, self._double = setting, dtype == torch.float64
        optimizer = optax.adam(OUTER_LR)
        loss = partial(_mean_adapted_loss, inner_lr=meta_step.inner_lr, inner_steps=meta_step.inner_steps)

        def step(state: Arrays, batch: Arrays) -> tuple[Arrays, Arrays]:
            params, moments = state
            value, gradient = jax.value_and_grad(loss)(params, batch)
            updates, moments = optimizer.update(gradient, moments)
            return (optax.apply_updates(params, updates), moments), value

        self._steps = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches))
        self._gradient = jax.jit(jax.value_and_grad(loss))
        with jax.enable_x64(self._double):
            params = {name: jnp.asarray(value.to(dtype).numpy()) for name, value in setting.initial.items()}
            self._state = params, optimizer.init(params)

    def run(self, start: int, steps: int) -> None:
        drawn = self._setting.draw(start, steps)
        batches = tuple(value.reshape(steps, -1, *value.shape[1:]) for value in _arrays(drawn))
        self._state, losses = self._steps(self._state, batches)
        jax.block_until_ready((self._state, losses))

    def meta_gradient(self, batch: TaskBatch) -> tuple[float, Params]:
        with jax.enable_x64(self._double):
            loss, gradient = self._gradient(self._state[0], _arrays(batch))
        return float(loss), {name: torch.tensor(value.tolist(), dtype=torch.float64) for name, value in gradient.items()}


def _arrays(batch: TaskBatch) -> tuple[Any, ...]:
    return tuple(value.numpy() for value in (batch.support_x, batch.support_y, batch.query_x, batch.query_y))


def _loss(params: Arrays, x: Arrays, y: Arrays) -> Arrays:
    last = len(params) // 2 - 1
    for layer in range(last + 1):
        x = x @ params[f"layer{layer}.weight"] + params[f"layer{layer}.bias"]
        if layer < last:
            x = jax.nn.relu(x)
    return jnp.mean((x - y) ** 2)


def _mean_adapted_loss(params: Arrays, batch: Arrays, inner_lr: float, inner_steps: int) -> Arrays:
    """The mean over tasks of the query loss after the inner steps; batch: a tuple of arrays [tasks, …]."""

    def of_task(support_x: Arrays, support_y: Arrays, query_x: Arrays, query_y: Arrays) -> Arrays:
        def step(theta: Arrays, _: None) -> tuple[Arrays, None]:
            gradient = jax.grad(_loss)(theta, support_x, support_y)
            return jax.tree.map(lambda value, g: value - inner_lr * g, theta, gradient), None

        theta, _ = jax.lax.scan(step, params, None, length=inner_steps)
        return _loss(theta, query_x, query_y)

    return jnp.mean(jax.vmap(of_task)(*batch))
