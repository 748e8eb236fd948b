from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lit_awm.analysis import Gradients
from lit_awm.callbacks import AdaptiveHorizon
from tests.callbacks.test_horizon_curriculum import Horizons, make


def told(norm: float, deviation: float) -> tuple[float, float]:
    """Norm and signal-to-noise of two gradients with this mean and this root of their total variance."""
    offset = deviation / math.sqrt(2)
    rows = torch.tensor([[norm, offset], [norm, -offset]], dtype=torch.float64)
    measured = Gradients(1, torch.zeros(2), rows, torch.zeros(2, 1, 1), None)
    return measured.norm, measured.signal_to_noise


def started(horizon: int, **options: Any) -> AdaptiveHorizon:
    callback = AdaptiveHorizon(**({"start": 4, "growth": 1.5} | options))
    callback.full, callback.horizon = 20, horizon
    return callback


@pytest.mark.parametrize(
    ("measured", "horizon"),
    [
        (told(1.0, 0.9), 15),  # signal above noise: grow
        (told(1.0, 1.1), 10),  # below it: stay
        (told(1.0, 0.0), 15),  # nothing differs: grow
        (told(math.nan, 0.0), 6),  # not finite: shrink
    ],
)
def test_the_horizon_follows_the_signal(measured: tuple[float, float], horizon: int) -> None:
    assert started(10).adapt(*measured) == horizon


def test_an_explosion_shrinks_the_horizon_and_both_ends_hold() -> None:
    callback = started(10, explosion=5.0)
    assert [callback.adapt(*told(norm, 0.1)) for norm in (1.0, 4.9, 30.0, 900.0, 1e5)] == [15, 20, 13, 8, 5]
    assert callback.adapt(*told(1e9, 0.1)) == 4
    callback.horizon = 18
    assert callback.adapt(*told(1.0, 0.1)) == 20


def test_a_resumed_run_goes_on_with_the_horizon_it_had() -> None:
    before, after = started(10), started(4)
    before.adapt(*told(1.0, 0.1))
    after.load_state_dict(before.state_dict())
    assert after.horizon == 15
    assert after.adapt(*told(11.0, 0.1)) == 10  # an explosion from the norm before


def test_a_restored_horizon_is_not_beyond_the_modules(make_trainer: Any) -> None:
    class Restored(AdaptiveHorizon):
        def setup(self, *args: Any, **kwargs: Any) -> None:
            super().setup(*args, **kwargs)
            self.load_state_dict({"horizon": 15, "last_norm": 1.0, "signal_to_noise": None})  # as of a checkpoint

    horizons = Horizons()
    module, data = make(horizon=5)
    make_trainer(max_epochs=1, callbacks=[Restored(start=2), horizons]).fit(module, data)
    assert set(horizons.seen) == {5}


def test_trajectories_that_do_not_differ_let_it_grow_in_training(make_trainer: Any) -> None:
    horizons = Horizons()
    module, data = make()
    callback = AdaptiveHorizon(start=2, growth=2.0, every=2)
    trainer = make_trainer(max_epochs=3, callbacks=[callback, horizons])
    trainer.fit(module, data)
    assert horizons.seen == [4, 4, 8, 8, 10, 10]
    assert trainer.callback_metrics["policy/imagination_horizon"] == 10
    assert module.imagination_horizon == 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": 0}, "start must be at least 1, got 0"),
        ({"threshold": 0.0}, "threshold must be positive"),
        ({"growth": 1.0}, "growth must be above 1 and finite, got 1.0"),
        ({"explosion": math.inf}, "explosion must be above 1 and finite, got inf"),
        ({"every": 0}, "every must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AdaptiveHorizon(**({"start": 2} | options))


def test_a_start_beyond_the_modules_horizon_is_refused(make_trainer: Any) -> None:
    module, data = make(horizon=5)
    with pytest.raises(ValueError, match="start must not exceed the policy module's imagination_horizon 5, got 6"):
        make_trainer(max_epochs=1, callbacks=[AdaptiveHorizon(6)]).fit(module, data)


def test_it_measures_once_before_an_update_whatever_the_batches(make_trainer: Callable[..., Trainer]) -> None:
    horizons = Horizons()
    module, data = make()
    data.updates["policy"] = 4
    callbacks = [AdaptiveHorizon(start=2, growth=1.5, every=1), horizons]
    make_trainer(max_epochs=1, callbacks=callbacks, accumulate_grad_batches=2).fit(module, data)
    assert horizons.seen == [3, 3, 5, 5]  # nothing differs: it grows at each of two updates


def test_another_fit_begins_with_the_least_horizon(make_trainer: Callable[..., Trainer]) -> None:
    horizons, callback = Horizons(), AdaptiveHorizon(start=2, growth=1.5, every=1)
    for _ in range(2):
        module, data = make()
        data.updates["policy"] = 2
        make_trainer(max_epochs=1, callbacks=[callback, horizons]).fit(module, data)
    assert horizons.seen == [3, 5, 3, 5]


def test_after_a_gradient_of_zero_nothing_is_an_explosion() -> None:
    callback = started(20)
    callback.adapt(0.0, 0.0)
    assert callback.adapt(1e-3, 1e9) >= 20
