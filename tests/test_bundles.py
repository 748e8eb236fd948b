from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

import lit_awm
from lit_awm.bundles import _known_reward, check_same, describe, make_bundle
from lit_awm.cli import main
from lit_awm.models import DeterministicPolicy, MarkovWorldModel, RewardModel
from lit_awm.recipes import build, options_of

pytestmark = pytest.mark.program

LENGTH = 12
SMALL = ["--config", "bear_populations", "--data.episode_length", str(LENGTH), "--data.num_envs", "1"]
TINY = [*SMALL, "--data.warmup_episodes", "1", "--data.teacher_updates", "1", "--data.turns", "1"]
TINY += ["--data.world_model_updates", "1", "--data.policy_updates", "1"]
FILES = {"safetensors": "{}.safetensors", "program": "{}.pt2", "onnx": "{}.onnx"}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lit-awm"])


def checkpoint(*options: str) -> str:
    assert main(["fit", *TINY, "--trainer.max_epochs", "1", *options]) == 0
    return "runs/bear_populations/version_0/checkpoints/last.ckpt"


def test_what_tells_where_episodes_end_is_exported_with_the_world_model() -> None:
    options = ["--model.world_model_module.continuation=lit_awm.models.Continuation", "--model.known_reward=false"]
    path = checkpoint(*options)
    assert main(["export", path, "--out", "bundle", "--formats", "safetensors"]) == 0
    module, _ = build([*TINY, *options])
    module.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    states = torch.rand(3, 5, 4) - 1
    survival = lit_awm.load_world_model("bundle").survival(states)
    assert torch.equal(survival, module.world_model.world_model.survival(states))
    assert survival[:, 1:].lt(1).all()


def test_a_learned_reward_is_exported_with_the_world_model() -> None:
    options = ["--model.known_reward", "false"]
    path = checkpoint(*options)
    assert main(["export", path, "--out", "bundle", "--formats", "safetensors"]) == 0
    module, _ = build([*TINY, *options])
    module.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    loaded = lit_awm.load_world_model("bundle")
    assert isinstance(loaded.reward_fn, RewardModel)
    states, actions = torch.rand(3, 5, 4), torch.rand(3, 5, 2)
    assert torch.equal(loaded(states, actions).reward, module.world_model.world_model(states, actions).reward)


@pytest.mark.parametrize(
    "family",
    [
        "simulator",
        "actions",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("actions_gru", "history", "markov")),
    ],
)
def test_what_is_exported_acts_as_the_checkpoint(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = checkpoint(*options_of(family, LENGTH))
    capsys.readouterr()
    assert main(["export", path, "--out", "bundle"]) == 0
    parts = ["policy"] if family == "simulator" else ["policy", "world_model"]
    names = {pattern.format(part) for pattern in FILES.values() for part in parts} | {"description.json"}
    assert {file.name for file in Path("bundle").iterdir()} == names
    assert {Path(line).name for line in capsys.readouterr().out.splitlines()} >= names
    module, _ = build([*TINY, *options_of(family, LENGTH)])
    module.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    module.requires_grad_(False)
    states, actions = torch.rand(7, LENGTH, 4), torch.rand(7, LENGTH, 2)
    expected: dict[str, tuple[torch.Tensor, ...]] = {"policy": (module.policy.policy.sample(states[:, 0]),)}
    loaded: dict[str, Any] = {"policy": lit_awm.load_policy("bundle").sample}
    if "world_model" in parts:
        expected["world_model"] = tuple(module.world_model.world_model(states, actions))
        loaded["world_model"] = lit_awm.load_world_model("bundle")
    for part, inputs in {"policy": (states[:, 0],), "world_model": (states, actions)}.items():
        if part not in parts:
            continue
        program = torch.export.load(f"bundle/{part}.pt2").module()
        session = onnxruntime.InferenceSession(f"bundle/{part}.onnx")
        given = {each.name: value.numpy() for each, value in zip(session.get_inputs(), inputs, strict=True)}
        found = [loaded[part](*inputs), program(*inputs), [torch.from_numpy(each) for each in session.run(None, given)]]
        for each in found:
            each = (each,) if isinstance(each, torch.Tensor) else tuple(each)
            for ours, theirs in zip(each, expected[part], strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_policy_is_loaded_without_lightning_and_torchrl() -> None:
    main(["export", checkpoint(), "--out", "bundle", "--formats", "safetensors"])
    code = (
        "import sys, torch, lit_awm; policy = lit_awm.load_policy('bundle'); print(policy(torch.zeros(3, 4)).shape); "
        "assert not {'lightning', 'torchrl', 'tensordict'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "torch.Size([3, 2])"


@pytest.mark.slow
def test_what_cannot_be_exported_is_named_and_the_rest_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    path = checkpoint(*options_of("actions_state_space", LENGTH))
    capsys.readouterr()
    assert main(["export", path, "--out", "bundle", "--formats", "program,onnx"]) == 1
    assert "not written: world_model as onnx: " in capsys.readouterr().out
    assert {file.name for file in Path("bundle").iterdir()} == {"policy.pt2", "policy.onnx", "world_model.pt2"}


def test_a_model_that_acts_otherwise_is_not_written() -> None:
    policy, twin = DeterministicPolicy(3, 1), DeterministicPolicy(3, 1)
    with pytest.raises(ValueError, match="the twin differs from the model by .*; it was not written"):
        check_same(policy, twin, torch.randn(4, 3), tolerance=1e-6, what="the twin")
    recipe = {"model": {"init_args": {"policy": {"class_path": "lit_awm.models.DeterministicPolicy"}}}}
    recipe["model"]["init_args"]["world_model"] = {"class_path": "lit_awm.models.MarkovWorldModel"}
    facts = {"state_dim": 3, "action_dim": 1, "clock_step": 0.1, "known_reward": False}
    description = describe(recipe | {"data": {"init_args": {}}}, **facts)
    model = MarkovWorldModel(3, 1)  # which has no clock
    with pytest.raises(ValueError, match=r"world_model\.safetensors differs from the model"):
        make_bundle(description, policy, model)


def test_a_description_cannot_make_anything_else() -> None:
    main(["export", checkpoint(), "--out", "bundle", "--formats", "safetensors"])
    file = Path("bundle/description.json")
    description = json.loads(file.read_text())
    for change, words in (
        ({"policy": {"class_path": "os.system"}}, "class_path must be that of a Policy in lit_awm.models, got 'os.sys"),
        ({"policy": {"class_path": "evil.DeterministicPolicy"}}, "class_path must be that of a Policy"),
        ({"policy": {"class_path": "lit_awm.models.CausalTransformer"}}, "got 'lit_awm.models.CausalTransformer'"),
        ({"format": 2}, "path must be a bundle of format 1, got 2"),
    ):
        file.write_text(json.dumps(description | change))
        with pytest.raises(ValueError, match=words):
            lit_awm.load_policy("bundle")


def test_a_bundle_names_no_environment_that_is_imported() -> None:
    with pytest.raises(ValueError, match="env must be a system of the testbed in a bundle, got 'gym/module:Env-v0'"):
        _known_reward({"env": "gym/module:Env-v0", "episode_length": 5})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "which is damaged"),
        ("[]", "which is damaged"),
        ('{"format": "1"}', "of format 1, got '1'"),
        ('{"format": 1}', "KeyError"),
    ],
)
def test_a_damaged_bundle_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "description.json").write_text(text)
    (tmp_path / "policy.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=f"path must be .*{words}"):
        lit_awm.load_policy(tmp_path)


def test_what_is_no_bundle_is_refused() -> None:
    with pytest.raises(ValueError, match="path must be a folder that `lit-awm export` has written, got 'nowhere'"):
        lit_awm.load_policy("nowhere")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nowhere.ckpt"], "checkpoint must be a file, got 'nowhere.ckpt'"),
        (
            ["nowhere.ckpt", "--formats", "onx"],
            "formats must be of safetensors, program, onnx, got 'onx'. Did you mean",
        ),
    ],
)
def test_mistakes_are_named(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["export", *options])
    assert raised.value.code == 2
    assert words in capsys.readouterr().err


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["export", "nowhere.ckpt"])
    assert "format onnx needs onnx, onnxscript, onnxruntime: pip install 'lit-awm[onnx]'" in capsys.readouterr().err


def test_a_policy_of_recordings_is_exported_without_them_with_the_known_reward_and_a_short_horizon() -> None:
    assert main(["collect", "--config", "harvest", "--episodes", "4", "--out", "r.npz"]) == 0
    options = ["--data.path", "r.npz", "--data.env", "harvest", "--data.env_options.episode_length", "100"]
    options += ["--model.known_reward", "true", "--data.turns", "1", "--data.slice_length", "4"]
    options += [f"--data.{phase}_updates=1" for phase in ("teacher", "world_model", "policy")]
    assert main(["fit", "--config", "offline_policy", *options, "--trainer.max_epochs", "1"]) == 0
    checkpoint = "runs/offline_policy/version_0/checkpoints/last.ckpt"
    Path("r.npz").unlink()
    assert main(["export", checkpoint, "--formats", "safetensors", "--out", "there"]) == 0
    model = lit_awm.load_world_model("there")
    assert model.max_horizon == 4
    assert model.reward_fn is not None
