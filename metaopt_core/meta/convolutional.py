"""The cross-entropy of the convolutional network of few-shot papers: its gradient, and products with its Hessian, written out.

With blocks l = 1, …, L that convolve and normalize, and the mean over positions before the last layer:

    z_l = conv(y_{l−1}, W_l),  y_l = relu(s_l norm(z_l) + b_l),  f = mean(y_L),  logits = f A + c

The gradient is what backpropagation gives, G = (dW_l, ds_l, db_l, dA, dc). The product with a direction u is the gradient of
⟨G, u⟩, by going back through backpropagation and then back through the network (Pearlmutter 1994 has the same in the other order).
Automatic differentiation does the same arithmetic, and small chunks of tasks take a quarter longer by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

from metaopt_core import kernels
from metaopt_core.meta.losses import Gradient, HessianProduct, Unpacked
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.network import Params
from metaopt_core.networks.normalization import EPSILON


@dataclass(frozen=True)
class _Way:
    """Intermediate results of the gradient. inputs: y_0, …, y_{L−1}; by_y and by_z: the gradients by y_l and z_l."""

    inputs: list[Tensor]
    normals: list[kernels.Normal]
    features: Tensor  # [tasks, examples, filters]
    probabilities: Tensor  # [tasks, examples, outputs], like by_logits
    by_logits: Tensor
    by_y: list[Tensor]
    by_z: list[Tensor]

    def bytes(self) -> int:
        tensors = [*self.inputs[1:], *(normal.x for normal in self.normals), *self.by_y, *self.by_z]
        return sum(tensor.nbytes for tensor in tensors)


class CrossEntropyConv4(Unpacked):
    """x [tasks, examples, channels, h, w], labels [tasks, examples]; the loss is the mean over examples times `factor`. head_alone:
    as if the loss were a function of the last layer: gradients by what is before it are left out as zeros, and so are products'
    directions; products themselves are by all parameters.
    """

    def __init__(self, network: Conv4, x: Tensor, labels: Tensor, factor: float, head_alone: bool = False):
        self._head_alone = head_alone
        self._blocks, self._x, self._labels = network.blocks, x.movedim(2, -1).contiguous(), labels
        self._weight = x.new_full((), factor / x.shape[1]).expand(x.shape[:2])

    @staticmethod
    def fits(network: object, x: Tensor) -> TypeGuard[Conv4]:
        """Whether this class supports the network and the data."""
        return isinstance(network, Conv4) and network.looped and kernels.usable(x)

    def gradient(self, params: Params) -> tuple[Tensor, Gradient]:
        losses, gradient, _ = self._gradient(params)
        return losses, gradient

    def linearized(self, params: Params) -> tuple[Gradient, HessianProduct]:
        _, gradient, way = self._gradient(params)
        return gradient, lambda direction: self._product(params, way, dict(zip(params, direction, strict=True)))

    def bytes_kept(self, params: Params) -> int:
        return self._gradient(params)[2].bytes()

    @torch.no_grad()
    def _gradient(self, params: Mapping[str, Tensor]) -> tuple[Tensor, Gradient, _Way]:
        inputs, normals, y = [], [], self._x
        for l in range(self._blocks):
            inputs.append(y)
            z = kernels.convolve(y, params[f"conv{l}.weight"])
            scale, shift = (params[f"norm{l}.{name}"].contiguous() for name in ("scale", "shift"))
            y, normal = kernels.norm_relu(z, scale, shift, EPSILON)
            normals.append(normal)
        features = y.mean((2, 3))
        logs = torch.baddbmm(params["linear.bias"], features, params["linear.weight"]).log_softmax(-1)
        of_label = self._labels[..., None]
        losses = -(logs.gather(-1, of_label)[..., 0] * self._weight).sum(1)

        probabilities = logs.exp()
        by_logits = probabilities.scatter_add(-1, of_label, torch.full_like(self._weight, -1)[..., None]) * self._weight[..., None]
        found = {"linear.weight": features.mT @ by_logits, "linear.bias": by_logits.sum(1, keepdim=True)}
        if self._head_alone:
            found |= {name: value.new_zeros(()).expand_as(value) for name, value in params.items() if name not in found}
            return losses, tuple(found[name] for name in params), _Way(inputs, normals, features, probabilities, by_logits, [], [])
        by_y, by_z = [_over_positions(by_logits @ params["linear.weight"].mT, y)], []
        for l in reversed(range(self._blocks)):
            z_gradient, found[f"norm{l}.scale"], found[f"norm{l}.shift"] = kernels.norm_relu_gradient(by_y[-1], normals[l])
            by_z.append(z_gradient)
            found[f"conv{l}.weight"] = kernels.convolve_weight_gradient(inputs[l], z_gradient)
            if l:
                by_y.append(kernels.convolve_input_gradient(z_gradient, params[f"conv{l}.weight"], inputs[l].shape))
        way = _Way(inputs, normals, features, probabilities, by_logits, by_y[::-1], by_z[::-1])
        return losses, tuple(found[name] for name in params), way

    @torch.no_grad()
    def _product(self, params: Mapping[str, Tensor], way: _Way, u: Mapping[str, Tensor]) -> Gradient:
        """Names: to_… is the derivative of ⟨G, u⟩ by what comes after."""
        found: Params = {}
        to_by_y: list[Tensor] = []
        to_z: list[Tensor] = []
        for l in range(0 if self._head_alone else self._blocks):
            to_by_z = kernels.convolve(way.inputs[l], u[f"conv{l}.weight"])
            if l:
                to_by_z += kernels.convolve(to_by_y[-1], params[f"conv{l}.weight"])
            u_scale, u_shift = (u[f"norm{l}.{name}"].contiguous() for name in ("scale", "shift"))
            second = kernels.norm_relu_second(to_by_z, u_scale, u_shift, way.by_y[l], way.normals[l])
            to_by_y.append(second[0])
            to_z.append(second[1])
            found[f"norm{l}.scale"] = second[2]

        weight = params["linear.weight"]
        to_by_logits = torch.baddbmm(u["linear.bias"], way.features, u["linear.weight"])
        if not self._head_alone:
            to_by_features = to_by_y[-1].mean((2, 3))
            to_by_logits.baddbmm_(to_by_features, weight)
        weighted = way.probabilities * self._weight[..., None]
        to_logits = weighted * (to_by_logits - (way.probabilities * to_by_logits).sum(-1, keepdim=True))
        found["linear.weight"] = way.features.mT @ to_logits
        if not self._head_alone:
            found["linear.weight"].baddbmm_(to_by_features.mT, way.by_logits)
        found["linear.bias"] = to_logits.sum(1, keepdim=True)
        to_features = (to_logits @ weight.mT).baddbmm_(way.by_logits, u["linear.weight"].mT)

        to_y = _over_positions(to_features, way.normals[-1].x)
        for l in reversed(range(self._blocks)):
            back, to_scale, found[f"norm{l}.shift"] = kernels.norm_relu_gradient(to_y, way.normals[l])
            if self._head_alone:
                found[f"norm{l}.scale"], found[f"conv{l}.weight"] = to_scale, kernels.convolve_weight_gradient(way.inputs[l], back)
                if l:
                    to_y = kernels.convolve_input_gradient(back, params[f"conv{l}.weight"], way.inputs[l].shape)
                continue
            found[f"norm{l}.scale"] += to_scale
            to_z[l] += back
            found[f"conv{l}.weight"] = kernels.convolve_weight_gradient(way.inputs[l], to_z[l])
            if l:
                found[f"conv{l}.weight"] += kernels.convolve_weight_gradient(to_by_y[l - 1], way.by_z[l])
                to_y = kernels.convolve_input_gradient(to_z[l], params[f"conv{l}.weight"], way.inputs[l].shape)
                to_y += kernels.convolve_input_gradient(way.by_z[l], u[f"conv{l}.weight"], way.inputs[l].shape)
        return tuple(found[name] for name in params)


def _over_positions(by_mean: Tensor, of: Tensor) -> Tensor:
    """The gradient by y [tasks, examples, h, w, channels] from the one by its mean over positions."""
    positions = of.shape[2] * of.shape[3]
    return (by_mean / positions)[:, :, None, None].expand(of.shape).contiguous()
