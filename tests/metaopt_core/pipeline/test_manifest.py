"""A manifest checks itself and the files that it names."""

import json
import os
import time
from pathlib import Path

import pytest

from metaopt_core.pipeline import manifest

VALUES = {"fingerprint": "f", "files": {}, "made_from": {}, "started": 1.5, "seconds": 2.5, "extra": {"café": [None, True]}}


def test_a_manifest_is_json_and_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / manifest.NAME
    path.write_text(manifest.text_of(VALUES))
    found = manifest.read(path)
    assert found is not None
    values, digest = found
    assert values == VALUES | {"sha256": digest}
    assert json.loads(path.read_text())["extra"] == VALUES["extra"]


def test_a_flipped_bit_anywhere_in_it_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / manifest.NAME
    whole = manifest.text_of(VALUES).encode()
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            assert manifest.read(path) is None, (place, bit)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b" ", lambda data: b"", lambda data: data[1:]])
def test_a_manifest_cut_short_or_longer_is_noticed(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / manifest.NAME
    path.write_bytes(change(manifest.text_of(VALUES).encode()))
    assert manifest.read(path) is None


def test_a_file_is_read_once_as_long_as_it_looks_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "numbers"
    path.write_bytes(b"1")
    first = manifest.sha256(path)
    path.write_bytes(b"2")  # at once, and as long: times alone might not tell
    second = manifest.sha256(path)
    assert first != second
    monkeypatch.setattr(time, "time", lambda: path.stat().st_ctime + 2)
    assert manifest.sha256(path) == second
    monkeypatch.setattr("hashlib.file_digest", None)
    assert manifest.sha256(path) == second
    monkeypatch.undo()
    path.write_bytes(b"3")
    os.utime(path, ns=(0, 0))  # whatever its times are said to be
    assert manifest.sha256(path) not in {first, second}
