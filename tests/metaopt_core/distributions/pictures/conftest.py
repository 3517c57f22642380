"""A small tree of pictures: 4 groups of 3 classes of 6 pictures, each class of a color of its own."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

GROUPS, CLASSES, PICTURES = 4, 3, 6


def color(group: int, label: int) -> tuple[int, int, int]:
    return 60 * group, 80 * label, 200 - 40 * group


def picture(rgb: tuple[int, int, int], seed: int, kind: str = "PNG", size: tuple[int, int] = (20, 16)) -> bytes:
    """A noisy area of a color, in a format of Pillow's."""
    noise = np.random.default_rng(seed).integers(0, 30, (size[1], size[0], 3))
    file = io.BytesIO()
    Image.fromarray((np.array(rgb) + noise).clip(0, 255).astype(np.uint8)).save(file, kind)
    return file.getvalue()


def pictures() -> dict[str, bytes]:
    """Path below the root → content; of three formats."""
    kinds = ("PNG", "JPEG", "BMP")
    return {
        f"group{group}/class{label}/{number}.{kinds[number % 3].lower()}": picture(
            color(group, label), 100 * group + 10 * label + number, kinds[number % 3]
        )
        for group in range(GROUPS)
        for label in range(CLASSES)
        for number in range(PICTURES)
    }


def written(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree, which tests don't change."""
    return written(tmp_path_factory.mktemp("pictures") / "root", pictures())
