"""Say at the end of a run what it reached and where its files are."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from lit_awm.checkpoints import run_folder
from lit_awm.envs import SYSTEMS

SHARES = {  # scores, and what they say
    "regret": "0 % optimal, 100 % random",
    "gap": "0 % optimal, 100 % best constant",
    "target_error": "of the width of the state's bounds",
}
FAR = 1.0  # disagreement of an ensemble, in steps as large as those of the data are


class RunSummary(Callback):
    """Print scores, errors, environment steps, time, and the paths of checkpoint, log and figure.

    It prints what the other callbacks have logged and written, and leaves out what they have not. If the run that was
    gone on with had ended before, it says so.
    """

    _has_trained = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._has_trained = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        has_trained, self._has_trained = self._has_trained, False
        folder = run_folder(trainer)  # a collective call
        if not trainer.is_global_zero:
            return
        rows = self._scores(trainer)
        if not has_trained:
            told = f"the run has ended, after {trainer.current_epoch} epochs; raise --trainer.max_epochs to go on"
            rows.insert(0, ("nothing to do", told))
        checkpoint = next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)), None)
        if checkpoint is not None:
            rows.append(("checkpoint", checkpoint.best_model_path or checkpoint.last_model_path))
        files = {"log": "metrics.csv", "figure": "trajectory.png"}
        paths = {what: folder / name for what, name in files.items()} if folder is not None else {}
        rows += [(what, str(path)) for what, path in paths.items() if path.is_file()]
        print("\n" + "\n".join(f"{name:<18}{value}" for name, value in rows if value))  # noqa: T201

    @staticmethod
    def _scores(trainer: Trainer) -> list[tuple[str, str]]:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        data = getattr(trainer, "datamodule", None)
        optimum, env_name = getattr(data, "optimum", None), getattr(data, "env_name", None)
        rows = []
        if "eval/cost" in metrics and env_name in SYSTEMS:
            rows.append(("cost", f"{metrics['eval/cost']:.6g}"))
            best = f"not stored for these options; `lit-awm oracle {env_name}` with them finds it"
            rows.append(("optimum", best if optimum is None else f"{optimum.cost:.6g}"))
        elif "eval/return" in metrics:
            rows.append(("return", f"{metrics['eval/return']:.6g}"))
        for name, meaning in SHARES.items():
            if f"eval/{name}" in metrics:
                rows.append((name.replace("_", " "), f"{metrics[f'eval/{name}']:.3%}   ({meaning})"))
        if "val/loss" in metrics:
            rows.append(("error held out", f"{metrics['val/loss']:.4g}"))
        if "policy/disagreement" in metrics:
            rows.append(("disagreement", f"{metrics['policy/disagreement']:.3g}   (above 1: far from the data)"))
            if metrics["policy/disagreement"] > FAR:
                rank_zero_warn(
                    "the policy has left the data: about what follows its actions models disagree by "
                    f"{metrics['policy/disagreement']:.3g} typical steps. Raise "
                    "`model.policy_module.disagreement_weight`, or collect more."
                )
        if "env_steps" in metrics:
            rows.append(("environment steps", f"{metrics['env_steps']:.0f}"))
        if "time/elapsed_s" in metrics:
            rows.append(("training time", f"{metrics['time/elapsed_s']:.0f} s"))
        return rows
