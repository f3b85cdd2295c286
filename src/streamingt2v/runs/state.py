"""A `State` as bytes and back, without loss: tensors as safetensors, plain values as JSON in its header. Nothing is unpickled."""

from __future__ import annotations

import json

from ..errors import RunError
from ..types import State

_VALUES = "values"


def pack_state(state: State) -> bytes:
    """The state as a safetensors file; TypeError for a value that is neither a tensor nor would come back from JSON as it was."""
    import torch  # not needed to look at a run, and slow to import
    from safetensors.torch import save

    # clones: safetensors wants every tensor contiguous in memory of its own
    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    values = {name: value for name, value in state.items() if name not in tensors}
    text = json.dumps(values)
    for name, value in json.loads(text).items():
        if value != values[name]:
            raise TypeError(
                f"state {name!r}: {values[name]!r} would come back as {value!r}; keep tensors and plain JSON values only"
            )
    return save(tensors, metadata={_VALUES: text})


def unpack_state(data: bytes) -> State:
    """The state of `pack_state`. RunError if the bytes are none."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        header = json.loads(
            data[8 : 8 + int.from_bytes(data[:8], "little")]
        )  # as the format has it: length, header, tensors
        # clones: a tensor inside of the bytes lies at any address, and sums differ in the last bit by how their data is aligned
        tensors = {name: value.clone() for name, value in load(data).items()}
        return {**tensors, **json.loads(header["__metadata__"][_VALUES])}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"a saved state is damaged: {error}") from error
