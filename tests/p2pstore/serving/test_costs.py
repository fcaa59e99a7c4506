"""The figures of models and GPUs, beside what was published."""

from __future__ import annotations

import pytest

from p2pstore.serving.costs import GPUS, MODELS, Costs


def test_the_70b_model_has_the_papers_kv_cache_and_operations() -> None:
    """320 KB a token, of which 1 TB holds 3 million; and table 1's constants."""
    costs = Costs()
    assert costs.model.kv_bytes == 320 * 1024
    assert costs.cache * costs.model.kv_bytes == pytest.approx(1e12, rel=0.02)
    flops = 80 * (4 * 10_000**2 * 8192 + 22 * 10_000 * 8192**2)
    assert costs.prefill.seconds(10_000, 0) == pytest.approx(0.02 + flops / (8 * 312e12 * 0.5))


def test_what_is_reused_is_spared() -> None:
    cost = Costs(fixed=0.0).prefill
    assert cost.seconds(9000, 4000) == pytest.approx(cost.seconds(9000, 0) - cost.seconds(4000, 0))


def test_every_figure_says_where_it_is_from() -> None:
    assert all(one.source for one in [*MODELS.values(), *GPUS.values()])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("gpu", GPUS)
def test_every_pair_makes_sense(model: str, gpu: str) -> None:
    costs = Costs(MODELS[model], GPUS[gpu])
    assert costs.decode.room > 100_000
    assert 0.0005 < costs.decode.seconds(0) < 0.1
    assert 0.01 < costs.prefill.seconds(8000, 0) < 5


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"gpus": 0}, "GPU"),
        ({"arithmetic_used": 1.5}, "between 0 and 1"),
        ({"network": 0}, "network"),
        ({"gpus": 1}, "do not fit"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Costs(**given)
