"""Networks as a user would write them."""

import torch
from torch import Tensor, nn


class Pictures(nn.Module):
    """Two convolutions with group or batch norm and max-pooling, then a linear layer."""

    def __init__(self, outputs: int, input_shape: tuple[int, ...], filters: int = 3, batch: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(input_shape[0], filters, 3, padding=1),
            nn.BatchNorm2d(filters, track_running_stats=False) if batch else nn.GroupNorm(1, filters, affine=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(filters, filters, 3, stride=2),
            nn.Tanh(),
        )
        self.head = nn.Linear(filters, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))  # type: ignore[no-any-return]


class Waves(nn.Module):
    """A layer of fixed frequencies, then two linear ones."""

    frequencies: Tensor

    def __init__(self, outputs: int, width: int = 20) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.linspace(0.1, 2, 10))
        self.hidden, self.out = nn.Linear(10, width), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden((x * self.frequencies).sin()).relu())  # type: ignore[no-any-return]


class Strange(nn.Module):
    """What can't be run for several tasks together, by kind."""

    count: Tensor

    def __init__(self, outputs: int, kind: str) -> None:
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(1, outputs + (kind == "outputs"))
        self.norm = nn.BatchNorm1d(1) if kind == "statistics" else nn.Identity()
        self.drop = nn.Dropout(0.5) if kind == "random" else nn.Identity()
        self.register_buffer("count", torch.zeros(()))
        if kind == "constructor":
            raise OSError("no weights")
        if kind == "frozen":
            self.linear.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(self.drop(self.norm(x)))
        if self.kind == "branch" and x.sum() > 0:
            x = -x
        if self.kind == "count":
            self.count.add_(1)
        if self.kind == "attention":
            x = nn.functional.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None])[0, 0]
        return x[:, None] @ torch.ones(3, 1) if self.kind == "shape" else x


class Unused(nn.Module):
    """With a parameter that its forward leaves out, or (`all`) with nothing else."""

    def __init__(self, outputs: int, all: bool = False) -> None:  # noqa: A002
        super().__init__()
        self.nothing, self.linear, self._all = nn.Linear(3, 2), nn.Linear(1, outputs), all

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, self.linear.out_features) if self._all else self.linear(x)


class Lazy(nn.Module):
    """Its first layer finds its size when it runs."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.LazyLinear(4), nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x).tanh())  # type: ignore[no-any-return]


class Forgetful(nn.Module):
    """Its constructor takes no number of outputs."""

    def __init__(self) -> None:
        super().__init__()
