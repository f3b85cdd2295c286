"""Extend diffusers' networks without repeating their settings."""

from collections.abc import Callable
from inspect import Signature, signature
from typing import Any

from torch import nn


def extends(stock: type) -> Callable[[Any], Any]:
    """Decorate `__init__(self, ..., **sizes)`: add the stock network's settings to its signature.

    diffusers reads from there what belongs into config.json.
    """

    def decorate(init: Any) -> Any:
        own = [p for p in signature(init).parameters.values() if p.kind is not p.VAR_KEYWORD]
        init.__signature__ = Signature([*own, *signature(stock).parameters.values()])
        return init

    return decorate


def extended(kind: type, stock: type, network: nn.Module, **own: Any) -> Any:
    """Return a `kind` with settings and weights of a stock network; `own`: settings of the new parts.

    ValueError if the network has weights that `kind` lacks.
    """
    config: Any = network.config
    made = kind(**{name: config[name] for name in signature(stock).parameters}, **own)
    _, unexpected = made.load_state_dict(network.state_dict(), strict=False)
    if unexpected:
        raise ValueError(f"the base network has unknown weights: {unexpected[:3]}, {len(unexpected)} in all")
    return made
