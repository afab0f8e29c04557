"""A deeper look says nothing at first, begins as the face parser, and learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from memorygan.encoder import EncoderConfig, PartEncoder, load_encoder, save_encoder
from memorygan.parser import FaceParser, ParserConfig

CONFIG = EncoderConfig(3, 8, size=32, channels=(4, 6, 8), hidden=16, deep=(4, 6, 8, 10), deep_size=32, deep_hidden=16)


def seen(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    image = torch.rand(count, 3, 64, 64, generator=random) * 2 - 1
    ids = torch.randint(0, 3, (count, 8, 8), generator=random).repeat_interleave(8, 1).repeat_interleave(8, 2)
    return image, nn.functional.one_hot(ids, 3).permute(0, 3, 1, 2).float()


def encoder() -> PartEncoder:
    torch.manual_seed(0)
    return PartEncoder(CONFIG)


def test_an_untrained_deep_look_says_nothing() -> None:
    deep = encoder()
    plain = PartEncoder(replace(CONFIG, deep=None))
    plain.load_state_dict({key: value for key, value in deep.state_dict().items() if not key.startswith("deep.")})
    with torch.no_grad():
        found, expected = deep(*seen()), plain(*seen())
    assert torch.equal(found.mean, expected.mean) and torch.equal(found.log_variance, expected.log_variance)


def test_it_begins_as_the_parser() -> None:
    torch.manual_seed(1)
    parser, network = FaceParser(ParserConfig(64, (4, 6, 8, 10))).eval(), encoder()
    assert network.deep is not None
    network.deep.begin_as(parser)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        for found, expected in zip(network.deep.trunk.features(image), parser.features(image), strict=True):
            assert torch.equal(found, expected)


def test_it_learns_and_keeps_its_statistics() -> None:
    network = encoder().train()
    assert network.deep is not None
    before = {name: value.clone() for name, value in network.deep.state_dict().items()}
    optimizer = torch.optim.SGD(network.deep.parameters(), 0.1)
    for _ in range(2):  # the heads first, then what they read
        posterior = network(*seen())
        optimizer.zero_grad()
        (posterior.mean - 1.0).square().mean().backward()
        optimizer.step()
    after = network.deep.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {"part_out.1.weight", "base_out.1.weight", "part_in.weight", "trunk.stem.0.weight"} <= moved
    assert not {name for name in moved if "running" in name or "tracked" in name}


def test_it_sees_who_stands_in_the_picture_not_how_it_is_lit() -> None:
    network = encoder().eval()
    assert network.deep is not None
    for parameter in network.deep.part_out[-1].parameters():
        nn.init.normal_(parameter)
    image, one_hot = seen()
    with torch.no_grad():
        found = network.deep(image, one_hot)
        lit, other = network.deep(0.5 * image - 0.2, one_hot), network.deep(image.flip(0), one_hot)
    assert (lit - found).abs().max() < 0.2 * (other - found).abs().max()


def test_it_is_saved_with_the_encoder(tmp_path) -> None:
    network = encoder().eval().half().float()
    save_encoder(tmp_path / "encoder.safetensors", network)
    again = load_encoder(tmp_path / "encoder.safetensors")
    assert again.config == CONFIG
    with torch.no_grad():
        torch.testing.assert_close(again(*seen()).mean, network(*seen()).mean, atol=1e-4, rtol=1e-3)


def test_too_few_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="three widths"):
        replace(CONFIG, deep=(4, 8))
