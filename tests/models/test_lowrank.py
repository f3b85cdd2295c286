"""Small changes of a network: none at first, exact when merged, and refused by another network."""

from __future__ import annotations

import copy

import pytest
import torch

from streamingt2v.errors import ModelError
from streamingt2v.models import lowrank
from toy_networks import randn, stir, streaming

TEXT = (2, 5, 12)


def run(network) -> torch.Tensor:
    with torch.no_grad():
        return network(randn(2, 4, 3, 8, 8), torch.tensor([10, 500]), randn(*TEXT, seed=2))


def test_an_attached_network_is_unchanged_and_trains_its_changes_alone():
    network, plain = streaming(), streaming()
    lowrank.attach(network, 2)
    torch.testing.assert_close(run(network), run(plain))
    run_with_grad = network(randn(2, 4, 3, 8, 8), 10, randn(*TEXT, seed=2))
    run_with_grad.square().mean().backward()
    frozen = [name for name, p in network.named_parameters() if name.endswith(".original")]
    assert frozen and all(network.get_parameter(name).grad is None for name in frozen)


def test_merged_changes_do_what_the_attached_network_did():
    plain = streaming()
    network = copy.deepcopy(plain)
    lowrank.attach(network, 2)
    stir(network, seed=7)
    for name, value in network.named_parameters():  # the frozen weights are the plain network's
        if name.endswith(".original"):
            value.data.copy_(
                plain.get_parameter(name.replace("parametrizations.", "").removesuffix(".original"))
            )
    merged = copy.deepcopy(plain)
    lowrank.merge(merged, lowrank.changes(network))
    torch.testing.assert_close(run(merged), run(network))
    assert not torch.allclose(run(merged), run(plain))


def test_changes_are_made_where_the_weights_are():
    network = streaming().to("meta")
    lowrank.attach(network, 2)
    assert {p.device.type for p in network.parameters()} == {"meta"}


def test_changes_are_small():
    network = streaming(block_out_channels=(32, 64))
    whole = sum(p.numel() for p in network.parameters())
    lowrank.attach(network, 2)
    assert sum(value.numel() for value in lowrank.changes(network).values()) < whole / 4


@pytest.mark.parametrize("name", ["conv_in.weights", "mid_block.nothing.up"])
def test_changes_of_another_network_are_refused(name):
    with pytest.raises(ModelError, match="do not fit"):
        lowrank.merge(streaming(), {name: torch.zeros(3, 2), name.replace(".up", ".down"): torch.zeros(2, 3)})
