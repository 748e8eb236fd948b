"""The examples of the README run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lit_awm.cli import main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 2
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["policy"].network.layers[0].weight.grad.abs().sum() > 0  # type: ignore[attr-defined]


def test_the_command_lines_parse(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("trainer: {max_epochs: 3}\n")
    commands = re.findall(r"^lit-awm (fit .*?)(?:  #.*)?$", README, flags=re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        arguments = [word for word in shlex.split(command) if word != "--print_config"]
        monkeypatch.setattr("sys.argv", ["lit-awm"])
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--print_config"])
        assert stop.value.code == 0, command
