"""Stage outputs on disk."""

import threading
import time
from pathlib import Path

import pytest

from metaopt_core.pipeline import store as stores
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


def test_damage_to_any_byte_of_an_output_is_noticed_and_named(tmp_path: Path) -> None:
    store, identity = Store(Home(tmp_path)), identities(sinusoid_spec("store"))["generate"]
    folder = Path(_made(store, "[1, 2, 3]", "now").folder)
    for path in folder.iterdir():
        whole = path.read_bytes()
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
            found = store.get(identity)
            assert isinstance(found, str)
            assert found.endswith(path.name)
        path.write_bytes(whole)
    assert isinstance(store.get(identity), StageOutput)


def test_an_output_that_is_made_again_stays_valid_until_the_new_one_takes_its_place(tmp_path: Path) -> None:
    store, identity = Store(Home(tmp_path)), identities(sinusoid_spec("store"))["generate"]
    first = _made(store, "[1]", "now")
    store.ask_again(identity)
    with store.publish(identity, {}) as (folder, _):
        (folder / "numbers.json").write_text("[2]")
        assert store.get(identity) == first
        assert store.is_asked_again(identity)
    second = store.get(identity)
    assert isinstance(second, StageOutput)
    assert (second / "numbers.json").read_text() == "[2]"
    assert second.folder == first.folder
    assert not store.is_asked_again(identity)
    assert [path.name for path in Path(first.folder).parent.iterdir()] == [identity.fingerprint]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_or_is_interrupted_leaves_the_old_output_and_that_it_was_asked_for(
    tmp_path: Path, error: type[BaseException]
) -> None:
    store, identity = Store(Home(tmp_path)), identities(sinusoid_spec("store"))["generate"]
    first = _made(store, "[1]", "now")
    store.ask_again(identity)
    with pytest.raises(error), store.publish(identity, {}):
        raise error
    assert Store(Home(tmp_path)).get(identity) == first
    assert Store(Home(tmp_path)).is_asked_again(identity)


def test_a_mark_that_outlived_the_output_which_it_asked_to_replace_asks_for_nothing(tmp_path: Path) -> None:
    """As where a process is killed between the two."""
    store, identity = Store(Home(tmp_path)), identities(sinusoid_spec("store"))["generate"]
    _made(store, "[1]", "now")
    store.ask_again(identity)
    (mark,) = (tmp_path / "outputs" / "generate").glob("*.again")
    kept = mark.read_text()
    _made(store, "[1]", "now")
    mark.write_text(kept)
    assert not store.is_asked_again(identity)


def test_asking_again_begins_at_the_beginning(tmp_path: Path) -> None:
    store, identity = Store(Home(tmp_path)), identities(sinusoid_spec("store"))["generate"]
    checkpoint = store.home.checkpoints / identity.fingerprint / "maml.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    store.ask_again(identity)
    assert not checkpoint.exists()
    assert not store.is_asked_again(identity)  # there is nothing to replace


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_reader_finds_one_of_the_two_outputs_whenever_it_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:  # a file system that can't: then there is a moment without any
        monkeypatch.setattr(stores, "_exchanged", lambda *_: False)
    store, identity = Store(Home(tmp_path)), identities(sinusoid_spec("store"))["generate"]
    folder, missing, done = Path(_made(store, "[1]", "now").folder), [], threading.Event()

    def look() -> None:
        while not done.is_set():
            if not folder.exists():
                missing.append(True)

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(20):
        _made(store, "[2]", "now")
    done.set()
    reader.join()
    assert not exchanges or not missing
    assert [path.name for path in folder.parent.iterdir()] == [identity.fingerprint]
