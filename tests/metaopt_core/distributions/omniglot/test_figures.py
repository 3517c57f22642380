"""Figures of characters and of classification tasks."""

from pathlib import Path

import torch

from metaopt_core.distributions.batch import Episode, Prediction
from metaopt_core.methods.contract import Setting
from metaopt_core.reporting.figures import save


def test_the_overview_shows_every_split_and_is_a_png_with_the_same_bytes_each_time(noise_setting: Setting, tmp_path: Path) -> None:
    figure = noise_setting.distribution.overview()
    titles = [axes.get_title() for axes in figure.axes]
    assert [title.split(",")[0] for title in titles] == ["train: 40 characters", "validation: 10 characters", "test: 10 characters"]
    for name in ("a.png", "b.png"):
        save(noise_setting.distribution.overview(), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_examples_say_which_class_a_query_is_taken_for_in_green_where_that_is_right(noise_setting: Setting) -> None:
    tasks = noise_setting.distribution.held_out("test", Episode(3, 1, 2), 0, 2)
    outputs = torch.nn.functional.one_hot(tasks.query_y, 3).float()
    outputs[1] = outputs[1].roll(1, -1)  # the second task's answers are the class after the right one
    figure = noise_setting.distribution.examples(tasks, [Prediction("MAML", "tab:blue", outputs, outputs, 2)])
    shown = [(axes.get_title(), axes.title.get_color()) for axes in figure.axes]
    supports = [(f"class {way}", "black") for way in range(3)]
    right = [(f"{way} → {way}", "tab:green") for way in range(3)]
    wrong = [(f"{way} → {(way + 1) % 3}", "tab:red") for way in range(3)]
    assert shown == [*supports, *right, *supports, *wrong]
