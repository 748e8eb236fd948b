from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyMemmapStorage

from lit_awm.data.formats import PACKAGES, READERS, WRITERS, check_format, read_rows, to_trajectories, write_rows

LENGTHS = (4, 2, 5)


def make_steps() -> TensorDict:
    """Three episodes of different lengths: the first is cut off, the others end."""
    torch.manual_seed(0)
    episodes = []
    for number, length in enumerate(LENGTHS):
        states, done = torch.randn(length + 1, 3), torch.zeros(length, 1, dtype=torch.bool)
        done[-1] = True
        following = {
            "observation": states[1:],
            "reward": torch.randn(length, 1),
            "done": done,
            "terminated": done & (number > 0),
        }
        ids = torch.full((length,), 7 * number)
        steps = {"observation": states[:-1], "action": torch.rand(length, 2), "next": following}
        episodes.append(TensorDict(steps | {"collector": {"traj_ids": ids}}, batch_size=length))
    return torch.cat(episodes)


def assert_same(found: TensorDict, steps: TensorDict) -> None:
    for key in ("observation", "action", ("next", "observation"), ("next", "reward")):
        torch.testing.assert_close(found[key], steps[key])
    assert torch.equal(found["next", "terminated"], steps["next", "terminated"])
    assert found["collector", "traj_ids"].tolist() == [n for n, length in enumerate(LENGTHS) for _ in range(length)]
    assert found["is_init"].flatten().nonzero().flatten().tolist() == [0, 4, 6]


@pytest.mark.parametrize("ending", WRITERS)
def test_what_is_written_is_read_back(ending: str, tmp_path: Path) -> None:
    if ending in PACKAGES:
        pytest.importorskip(PACKAGES[ending])
    steps, path = make_steps(), tmp_path / f"steps{ending}"
    write_rows(path, steps)
    assert_same(to_trajectories(read_rows(str(path))), steps)


def test_memory_mapped_steps_are_read(tmp_path: Path) -> None:
    steps = make_steps()
    steps["next", "truncated"] = steps["next", "done"] & ~steps["next", "terminated"]
    steps.memmap(tmp_path / "steps")
    assert_same(to_trajectories(read_rows(str(tmp_path / "steps"))), steps)


def test_a_storage_that_is_not_full_is_read_as_far_as_it_is(tmp_path: Path) -> None:
    steps = make_steps()
    storage = LazyMemmapStorage(100)
    storage.set(range(len(steps)), steps)
    storage.dumps(tmp_path / "storage")
    assert len(to_trajectories(read_rows(str(tmp_path / "storage")))) == len(steps)
    with pytest.raises(ValueError, match="columns must be left out"):
        read_rows(str(tmp_path / "storage"), {"reward": "r"})


def test_only_columns_of_a_field_are_its_own_and_others_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "time,observation_0,observation_1,observation_std,action,reward,reward_raw\nMon,1,2,9,0,3,9\nTue,4,5,9,0,6,9\n"
    )
    rows = read_rows(str(path))
    assert rows["observation"].tolist() == [[1, 2], [4, 5]]
    assert rows["reward"].tolist() == [[3], [6]]
    with pytest.raises(ValueError, match="must have one number of reward in a step, got 2"):
        read_rows(str(path), {"reward": ["reward", "reward_raw"]})


def test_a_dataset_of_minari_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    steps = make_steps()

    class Episode:
        def __init__(self, part: TensorDict) -> None:
            self.observations = torch.cat([part["observation"], part["next", "observation"][-1:]]).numpy()
            self.actions, self.rewards = part["action"].numpy(), part["next", "reward"].squeeze(-1).numpy()
            self.terminations = part["next", "terminated"].squeeze(-1).numpy()
            self.truncations = (part["next", "done"] & ~part["next", "terminated"]).squeeze(-1).numpy()

    class Dataset:
        def iterate_episodes(self) -> list[Episode]:
            return [Episode(part) for part in steps.split(list(LENGTHS))]

    monkeypatch.setattr(minari, "load_dataset", lambda name, download: Dataset())
    assert_same(to_trajectories(read_rows("minari:some/set-v0")), steps)


def test_without_next_observations_the_last_step_of_an_episode_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "run,x,v,force,gain\n1,0.0,1.0,0.5,3\n1,0.1,1.1,0.4,4\n1,0.2,1.2,0.3,5\n2,9.0,9.1,0.2,6\n2,8.0,8.1,0.1,7\n"
    )
    columns: dict[str, Any] = {"observation": ["x", "v"], "action": "force", "reward": "gain", "episode": "run"}
    found = to_trajectories(read_rows(str(path), columns))
    torch.testing.assert_close(found["observation"], torch.tensor([[0.0, 1.0], [0.1, 1.1], [9.0, 9.1]]))
    torch.testing.assert_close(found["next", "observation"], torch.tensor([[0.1, 1.1], [0.2, 1.2], [8.0, 8.1]]))
    assert found["next", "reward"].flatten().tolist() == [3, 4, 6]
    assert found["collector", "traj_ids"].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("observation,act,reward\n1,2,3\n", {}, "must have 'action' for action, got observation, act, reward"),
        ("observation,action,reward\n1,2,3\n", {"action": "force"}, "must have 'force' for action"),
        ("observation,action,reward\n1,2,3\n", {"actions": "a"}, "columns must be of .*, got 'actions'. Did you mean"),
        ("observation,action,reward\n", {}, "must hold steps, got none"),
        ("observation,action,reward\n1,two,3\n", {}, "must hold numbers, got .*'two' in column 'action'"),
        ("observation,action,reward\n1,2\n", {}, "must have 3 entries in every line, got 2 in line 2"),
        (
            "observation,action,reward\n1,2,3\nnan,2,3\n",
            {},
            r"must hold finite numbers, in single precision, got observation \[nan\] in row 1",
        ),
        (
            "observation,action,reward\n1e39,2,3\n",
            {},
            r"must hold finite numbers, .* got observation \[1e\+39\] in row 0",
        ),
        ("observation,action,reward,episode\n1,2,3,nan\n", {}, r"must hold finite numbers, .* got episode \[nan\]"),
        ("observation,action,reward,terminated\n1,2,3,7\n", {}, r"must hold 0 or 1, got terminated \[7.0\] in row 0"),
        (
            "observation,action,reward,reward\n1,2,3,4\n",
            {},
            "must have a name of its own for every column, got 'reward'",
        ),
        ("observation,action,reward\n1,2,3\n\n1,2\n", {}, "got 2 in line 4"),
        (
            "observation_0,observation_2,action,reward\n1,2,3,4\n",
            {},
            "must number the columns of observation without gaps, got observation_0, observation_2",
        ),
        (
            "observation_0,observation_1,action,reward,next_observation\n1,2,3,4,5\n",
            {},
            "must have next_observation as wide as observation, 2, got 1",
        ),
    ],
)
def test_a_recording_that_cannot_be_understood_is_refused(
    text: str, columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_rows(str(path), columns)


def test_columns_are_taken_by_their_numbers_and_a_byte_order_mark_is_none_of_a_name(tmp_path: Path) -> None:
    numbers = [11, *range(11)]
    path = tmp_path / "log.csv"
    names = [f"observation_{number}" for number in numbers]
    text = f"{','.join(names)},action,reward\n{','.join(map(str, numbers))},0,0\n"
    path.write_text(text, encoding="utf-8-sig")
    assert read_rows(str(path))["observation"].tolist() == [list(range(12))]


@pytest.mark.parametrize("ending", READERS)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x93", b"PK\x03\x04 half of an archive"])
def test_a_damaged_file_is_named(ending: str, content: bytes, tmp_path: Path) -> None:
    if ending in PACKAGES:
        pytest.importorskip(PACKAGES[ending])
    path = tmp_path / f"steps{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"steps{ending}"):
        read_rows(str(path))


def test_arrays_of_another_format_or_of_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    np.savez(tmp_path / "objects.npz", observation=np.array([{}]))
    for name in ("array.npz", "objects.npz"):
        with pytest.raises(ValueError, match=f"path must be a .npz file that can be read, got .*{name}"):
            read_rows(str(tmp_path / name))


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        ([SimpleNamespace(observations={"goal": 1}, actions=np.zeros((1, 1)))], "whose observations are vectors"),
        ([SimpleNamespace(observations=np.zeros((2, 1)), actions=({},))], "whose actions are vectors"),
        ([], "with episodes"),
    ],
)
def test_a_dataset_of_minari_that_cannot_be_learned_from_is_refused(
    episodes: list[Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari")
    monkeypatch.setattr(minari, "load_dataset", lambda *_, **__: SimpleNamespace(iterate_episodes=lambda: episodes))
    with pytest.raises(ValueError, match=f"path must name a dataset {message}.*minari:some/set-v0"):
        read_rows("minari:some/set-v0")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path must be a file, .* which is not there"):
        read_rows(str(tmp_path / "none.csv"))
    (tmp_path / "log.txt").touch()
    with pytest.raises(ValueError, match=f"path must end in {', '.join(READERS)}"):
        read_rows(str(tmp_path / "log.txt"))
    with pytest.raises(ValueError, match="path must be the folder of a memory-mapped TensorDict"):
        read_rows(str(tmp_path))
    with pytest.raises(ValueError, match="out must end in .npz"):
        check_format(tmp_path / "log.txt")
    np.savez(tmp_path / "odd.npz", observation=np.zeros((3, 2)), action=np.zeros((2, 1)), reward=np.zeros(3))
    with pytest.raises(ValueError, match="must have as many rows of action as of observation, 3, got 2"):
        read_rows(str(tmp_path / "odd.npz"))
