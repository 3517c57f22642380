"""What `metaopt data check` asks a distribution that is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Findings:
    """What is worth knowing of data before anything is trained. facts: by what they are about. warnings: what may be wrong.

    sizes: split → examples of each task, if they are limited.
    """

    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    sizes: Mapping[str, Sequence[int]] = field(default_factory=dict)
