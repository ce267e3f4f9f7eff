"""A training checkpoint is whole or passed over."""

from __future__ import annotations

import json

import pytest
import torch

from medkit.training import checkpoints
from medkit.training.checkpoints import latest_checkpoint, save_checkpoint


def _state(value: float) -> dict:
    return {
        "params": {"weight": torch.full((4, 4), value)},
        "progress": {"step": 3, "losses": [1.5, 2.5]},
        "kept": None,
    }


def test_what_is_saved_comes_back(tmp_path):
    save_checkpoint(tmp_path, 3, _state(0.1))
    step, state = latest_checkpoint(tmp_path) or (0, {})
    assert step == 3
    assert torch.equal(state["params"]["weight"], torch.full((4, 4), 0.1))
    assert state["progress"] == {"step": 3, "losses": [1.5, 2.5]} and state["kept"] is None


def test_nothing_is_found_where_nothing_was_saved(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None


def test_only_the_newest_is_kept(tmp_path):
    for step in (5, 10, 15):
        save_checkpoint(tmp_path, step, _state(step))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000015"]


def _keep_two(tmp_path):
    """Puts a later checkpoint beside an earlier one, as a crash between renaming and tidying leaves them."""
    save_checkpoint(tmp_path / "other", 20, _state(20.0))
    save_checkpoint(tmp_path, 10, _state(10.0))
    (tmp_path / "other" / "step-00000020").rename(tmp_path / "step-00000020")
    return tmp_path / "step-00000020"


def _truncate(newest):
    path = newest / "state.pt"
    path.write_bytes(path.read_bytes()[:-100])


def _flip_bit(newest):
    path = newest / "state.pt"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


DAMAGES = {
    "truncated": _truncate,
    "one bit": _flip_bit,
    "no state": lambda newest: (newest / "state.pt").unlink(),
    "no manifest": lambda newest: (newest / "manifest.json").unlink(),
    "half a manifest": lambda newest: (newest / "manifest.json").write_text('{"step": 20, "sha'),
    "manifest of another kind": lambda newest: (newest / "manifest.json").write_text("[1, 2]"),
    "manifest without hash": lambda newest: (newest / "manifest.json").write_text(
        json.dumps({"step": 20, "sha256": {}})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    newest = _keep_two(tmp_path)
    assert (latest_checkpoint(tmp_path) or (0,))[0] == 20
    DAMAGES[damage](newest)
    step, state = latest_checkpoint(tmp_path) or (0, {})
    assert step == 10
    assert state["params"]["weight"][0, 0] == 10.0


def test_a_checkpoint_torn_while_it_was_written_is_passed_over_and_tidied(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 10, _state(10.0))

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.json, "dump", dies)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 20, _state(20.0))
    monkeypatch.undo()
    assert (tmp_path / "step-00000020.partial").is_dir() and not (tmp_path / "step-00000020").exists()
    assert (latest_checkpoint(tmp_path) or (0,))[0] == 10
    save_checkpoint(tmp_path, 30, _state(30.0))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000030"]


def test_everything_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    events = []
    real_sync, real_replace = checkpoints.os.fsync, checkpoints.os.replace
    monkeypatch.setattr(checkpoints.os, "fsync", lambda handle: (events.append("sync"), real_sync(handle)))
    monkeypatch.setattr(
        checkpoints.os, "replace", lambda *paths: (events.append("rename"), real_replace(*paths))
    )
    save_checkpoint(tmp_path, 1, _state(1.0))
    assert events == ["sync", "sync", "rename", "sync"]
