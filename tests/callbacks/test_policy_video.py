"""Films of the policy are made beside the run, and change nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from lit_awm.analysis.film import Film, film
from lit_awm.callbacks import PolicyVideo, policy_video
from lit_awm.cli import main
from lit_awm.data import ExperienceDataModule
from lit_awm.models import MarkovWorldModel
from lit_awm.modules import WorldModelModule

SHORT = [*(f"--data.{phase}_updates=2" for phase in ("teacher", "world_model", "policy")), "--trainer.max_epochs=2"]
FILMS = ["--trainer.callbacks+=PolicyVideo", "--trainer.callbacks.frames=4"]


def fit(name: str, *options: str) -> Path:
    main(["fit", "--config=bioreactor", "--data.episode_length=12", f"--trainer.logger.name={name}", *SHORT, *options])
    return Path("runs") / name / "version_0"


def test_a_run_ends_with_a_film_and_is_the_same_as_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def film_by_chance(*arguments: Any) -> Film:
        torch.rand(1)
        return film(*arguments)

    monkeypatch.setattr(policy_video, "film", film_by_chance)
    plain, filmed = fit("plain"), fit("filmed", *FILMS, "--trainer.callbacks.every=1")
    assert not (plain / "policy.gif").exists()
    with Image.open(filmed / "policy.gif") as shown:
        assert shown.n_frames == 4  # type: ignore[attr-defined]
    ends = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (plain, filmed)]
    for name, value in ends[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, ends[1][name])


def test_without_a_policy_there_is_no_film(tmp_path: Path, make_trainer: Callable[..., Trainer]) -> None:
    data = ExperienceDataModule("bioreactor", episode_length=10, num_envs=2, warmup_episodes=4, world_model_updates=1)
    module = WorldModelModule(MarkovWorldModel(data.state_dim, data.action_dim, hidden_dim=4))
    with pytest.warns(UserWarning, match="PolicyVideo films the policy"):
        make_trainer(max_epochs=1, callbacks=[PolicyVideo()], default_root_dir=tmp_path).fit(module, data)
    assert not list(tmp_path.rglob("*.gif"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": -1}, "every must be at least 0, got -1"),
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"frames_per_second": 0.0}, "frames_per_second must be positive, got 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolicyVideo(**options)  # type: ignore[arg-type]
