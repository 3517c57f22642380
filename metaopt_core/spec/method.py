"""The contract of a method, the part that planning and reports need: its names, and what it applies to.

Methods are what is compared on the meta-test tasks. `metaopt_core.methods.contract` has the other side: how a method is trained,
and how it adapts and predicts. No code outside a method asks which one it is.
"""

from typing import Annotated, Any, ClassVar, Protocol

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from metaopt_core.spec.base import is_import_path
from metaopt_core.spec.components import METHODS, find, known
from metaopt_core.spec.distribution import Targets


class Named(Protocol):
    """What methods need to know of `train`."""

    @property
    def label(self) -> str:
        """The algorithm's name as people write it."""

    @property
    def slug(self) -> str:
        """Its name in results, files and metrics."""

    @property
    def solved(self) -> bool:
        """Whether a head is solved for in closed form, instead of gradient steps."""


class MethodInfo:
    """What a method declares.

    name: in results, files and metrics. rank: its place in tables, the smaller the earlier. color, line: in figures, as matplotlib
    takes them. baseline: false for what the pipeline is there to learn. trained: whether it has a training of its own. optional:
    whether it is compared only where `train.baselines` leaves it in. takes_steps: whether it adapts by gradient steps, or by
    solving for a head, which counts as one. about: what it does, in words that continue its name, for reports.
    fitted: whether `fit` makes its parameters, without gradient steps. reference: whether a task on which another method is worse
    than this one is harmed by that method. simple: how simple a baseline is, the smaller the simpler: of several that are as good,
    the verdict names the simplest.
    libraries: those that it computes with besides NumPy, SciPy and torch, whose major versions are part of the identity.
    of_model: for a way to adapt the pipeline's own parameters, the `evaluate.adaptation` that makes it the logged model's.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    rank: ClassVar[float] = 35
    color: ClassVar[str] = "tab:purple"
    line: ClassVar[str] = "o-"
    baseline: ClassVar[bool] = True
    trained: ClassVar[bool] = False
    fitted: ClassVar[bool] = False
    reference: ClassVar[bool] = False
    simple: ClassVar[float] = 100
    optional: ClassVar[bool] = True
    takes_steps: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ()
    of_model: ClassVar[str | None] = None
    about: ClassVar[str] = ""

    @classmethod
    def component_name(cls) -> str:
        return cls.name

    @property
    def can_be_logged(self) -> bool:
        """Whether the logged model may be this method."""
        return self.of_model is not None

    def key(self, train: Named) -> str:  # noqa: ARG002
        """Its name in the results of a pipeline."""
        return self.name

    def label(self, train: Named) -> str:  # noqa: ARG002
        """Its name as people write it."""
        return self.title or self.name

    def refusal(self, train: Named, targets: Targets) -> str | None:  # noqa: ARG002
        """Why it can't be compared on such tasks, if it can't: words that continue its name."""
        return None


def import_path(method: MethodInfo) -> str:
    """`module:Class` of a method."""
    return f"{type(method).__module__}:{type(method).__qualname__}"


def named_method(name: str) -> MethodInfo:
    """The method of a name or import path. Raises PydanticCustomError."""
    method: type[MethodInfo] = find(METHODS, MethodInfo, name)
    return method()


def optional_methods() -> tuple[str, ...]:
    """Those that ship and that `train.baselines` may leave out."""
    return tuple(name for name, method in known(METHODS, MethodInfo).items() if method.optional)


def _baseline(name: str) -> str:
    if name not in optional_methods():
        if not is_import_path(name):
            expected = "expected a baseline such as pretrained or mixed_model, or an import path module:Class"
            raise PydanticCustomError("baseline", expected)
        named_method(name)
    return name


class _Schema:
    """The names, asked for when a schema is made: methods are components, and import this module."""

    def __get_pydantic_json_schema__(self, *_: Any) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(optional_methods())}, {"type": "string", "pattern": ":"}]}


BaselineName = Annotated[str, AfterValidator(_baseline), _Schema()]
