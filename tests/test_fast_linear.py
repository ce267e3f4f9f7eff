"""Linear layers through oneDNN give what torch's give, and only where that is meant."""

from __future__ import annotations

import pytest
import torch

from medkit.models.fast_linear import WORTH, fast_linears

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="this torch has no oneDNN linear layer",
)


class Own(torch.nn.Linear):
    def forward(self, input):
        return super().forward(input) + 1


@pytest.fixture
def calls(monkeypatch):
    """Counts oneDNN's products."""
    counted = []
    product = torch.ops.mkldnn._linear_pointwise

    def count(*arguments):
        counted.append(arguments[0].shape)
        return product(*arguments)

    monkeypatch.setattr("medkit.models.fast_linear._product", lambda: count)
    return counted


def _model(bias: bool = True) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 256, bias=bias), torch.nn.GELU(), torch.nn.Linear(256, 32))


@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_the_result_is_that_of_torch_to_the_last_bits(calls, bias):
    model, given = _model(bias), torch.randn(3, 100, 64)
    expected = model(given)
    with fast_linears(model):
        assert (model(given) - expected).abs().max() < 1e-5
    assert [tuple(shape) for shape in calls] == [(3, 100, 64), (3, 100, 256)]


@torch.inference_mode()
def test_small_products_stay_where_they_were(calls):
    model = _model()
    rows = WORTH // (64 * 256)
    with fast_linears(model):
        model[0](torch.randn(rows, 64))
        assert not calls
        model[0](torch.randn(rows + 1, 64))
    assert len(calls) == 1


@torch.inference_mode()
def test_afterwards_the_model_is_as_before_also_after_an_error():
    model = _model()
    with pytest.raises(KeyError), fast_linears(model):
        assert "forward" in vars(model[0])
        raise KeyError
    assert all("forward" not in vars(module) for module in model.modules())


@torch.inference_mode()
def test_other_precisions_and_layers_of_their_own_are_left_alone(calls):
    half, own = _model().to(torch.bfloat16), Own(64, 256)
    given = torch.randn(300, 64)
    with fast_linears(half), fast_linears(own):
        half(given.to(torch.bfloat16))
        assert torch.equal(own(given), torch.nn.functional.linear(given, own.weight, own.bias) + 1)
    assert not calls
