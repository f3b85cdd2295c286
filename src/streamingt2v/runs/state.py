"""Convert a `State` to bytes and back: tensors as safetensors, other values as JSON in its header."""

import json

from ..errors import RunError
from ..types import State

_VALUES = "values"


def pack_state(state: State) -> bytes:
    """Return a safetensors file; TypeError for values that neither it nor JSON gives back unchanged."""
    import torch  # slow to import, and not needed to look at a run
    from safetensors.torch import save

    # safetensors wants every tensor contiguous, in memory of its own
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    values = {name: value for name, value in state.items() if name not in tensors}
    text = json.dumps(values)
    for name, value in json.loads(text).items():
        if value != values[name]:
            fix = "keep only tensors and plain JSON values"
            raise TypeError(f"state {name!r}: {values[name]!r} would come back as {value!r}; {fix}")
    return save(tensors, metadata={_VALUES: text})


def unpack_state(data: bytes) -> State:
    """Read the bytes of `pack_state`; RunError for others."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        length = int.from_bytes(data[:8], "little")  # the format: length, header, tensors
        header = json.loads(data[8 : 8 + length])
        # clones are aligned like fresh tensors; sums differ in the last bit by alignment
        tensors = {name: value.clone() for name, value in load(data).items()}
        return {**tensors, **json.loads(header["__metadata__"][_VALUES])}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"a saved state is damaged: {error}") from error
