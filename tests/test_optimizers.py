"""The schedule's values, a rate for every part, and which matrices Muon takes."""

from __future__ import annotations

import pytest
import torch
from tiny_training import FULL, build

from medkit.models.adapters import make_trainable
from medkit.training.optimizers import MUON_RATIO, Optimizers, schedule

RATES = {"vision": 1e-4, "projector": 1e-3, "language": 5e-4}


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_schedule_warms_up_and_falls(shape, wanted):
    # six steps, a third of them warm-up
    assert [schedule(step, 6, 1 / 3, shape) for step in range(6)] == pytest.approx(wanted, abs=1e-6)


def test_a_schedule_of_one_step_is_at_its_peak():
    assert schedule(0, 1, 0.0, "cosine") == 1.0
    assert schedule(0, 1, 1.0, "linear") == 1.0
    assert schedule(0, 100, 0.03, "cosine") == pytest.approx(1 / 3)


def _optimizers(tmp_path, kind: str):
    loaded = build(tmp_path)
    groups = make_trainable(loaded, RATES, FULL)
    names = {parameter: name for name, parameter in loaded.model.named_parameters()}
    return loaded, names, Optimizers(groups, RATES, 0.1, kind, names)


def test_every_part_has_its_rate_and_vectors_do_not_decay(tmp_path):
    _, names, optimizers = _optimizers(tmp_path, "adamw")
    assert len(optimizers.members) == 1
    seen = set()
    for group in optimizers.members[0].param_groups:
        for parameter in group["params"]:
            name = names[parameter]
            seen.add(name)
            part = "vision" if "vision_tower" in name else "projector" if "projector" in name else "language"
            assert group["lr"] == RATES[part]
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)
    assert seen == {name for parameter, name in names.items() if parameter.requires_grad}
    assert optimizers.peak == 1e-3


def test_scaling_starts_from_the_peak_every_time(tmp_path):
    _, _, optimizers = _optimizers(tmp_path, "adamw")
    for factor in (0.5, 0.1):
        optimizers.scale(factor)
        rates = {group["part"]: group["lr"] for group in optimizers.members[0].param_groups}
        assert rates == pytest.approx({part: rate * factor for part, rate in RATES.items()})


def test_muon_takes_the_matrices_inside_blocks_and_nothing_else(tmp_path):
    _, names, optimizers = _optimizers(tmp_path, "muon")
    adam, muon = optimizers.members
    assert isinstance(muon, torch.optim.Muon)
    of_muon = {names[p] for group in muon.param_groups for p in group["params"]}
    of_adam = {names[p] for group in adam.param_groups for p in group["params"]}
    assert not of_muon & of_adam
    assert len(of_muon) == 2 * 6 + 2 * 7  # two vision blocks of 6 matrices, two language blocks of 7
    assert "model.vision_tower.encoder.layers.0.self_attn.q_proj.weight" in of_muon
    assert "model.language_model.layers.1.mlp.down_proj.weight" in of_muon
    assert {
        "model.multi_modal_projector.linear_1.weight",
        "model.language_model.embed_tokens.weight",
        "model.vision_tower.embeddings.patch_embedding.weight",
        "model.language_model.layers.0.input_layernorm.weight",
    } <= of_adam
    assert {group["part"]: group["lr"] for group in muon.param_groups} == {
        "vision": 1e-4 * MUON_RATIO,
        "language": 5e-4 * MUON_RATIO,
    }


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_restored_optimizer_takes_the_same_next_step(tmp_path, kind):
    def step(loaded, optimizers, seed):
        torch.manual_seed(seed)
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.randn_like(parameter)
        optimizers.step()

    loaded, _, optimizers = _optimizers(tmp_path / "one", kind)
    step(loaded, optimizers, 1)
    weights = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    torch.save(optimizers.state_dict(), tmp_path / "state.pt")
    step(loaded, optimizers, 2)
    assert all(p.grad is None for p in loaded.model.parameters())

    other, _, restored = _optimizers(tmp_path / "two", kind)
    with torch.no_grad():
        for name, parameter in other.model.named_parameters():
            parameter.copy_(weights[name])
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    step(other, restored, 2)
    for one, two in zip(loaded.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(one, two)
