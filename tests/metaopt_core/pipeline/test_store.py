"""Stage outputs on disk."""

import time
from pathlib import Path

from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import identities
from metaopt_core.pipeline.store import TIMES, StageOutput, Store
from tests.made_outputs import sinusoid_spec


def _made(store: Store, numbers: str, times: str) -> StageOutput:
    identity = identities(sinusoid_spec("store"))["generate"]
    with store.publish(identity, {}) as (folder, _):
        (folder / "numbers.json").write_text(numbers)
        (folder / TIMES).write_text(times)
    return store.made(identity)


def test_what_is_made_again_at_another_time_has_the_same_content(tmp_path: Path) -> None:
    store = Store(Home(tmp_path))
    first = _made(store, "[1]", "monday")
    assert _made(store, "[1]", "tuesday").content == first.content
    assert _made(store, "[2]", "monday").content != first.content


def test_an_output_says_when_it_was_made(tmp_path: Path) -> None:
    before = time.time()
    output = _made(Store(Home(tmp_path)), "[1]", "now")
    assert before <= output.started <= output.finished <= time.time()
