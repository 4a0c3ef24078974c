"""What goes along with a language model and takes memory beside it: a vision or sound projector, by its header."""

from __future__ import annotations

from dataclasses import dataclass

from harness.gguf.header import Header
from harness.gguf.types import pad

#: llama.cpp works in single precision within a projector. Source: tools/mtmd/clip.cpp.
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Projector:
    """A projector's weights in bytes, and what computing one image takes at the least.

    n_patches is how many pieces an image of the stated size is cut into, None where the header does not say, and working_bytes with it:
    models of sound, and those that take images of any size.
    """

    label: str
    weights_bytes: int
    n_patches: int | None = None
    working_bytes: int | None = None

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + (self.working_bytes or 0)


def describe_projector(header: Header, label: str, alignment: int = 128) -> Projector:
    """What a projector takes: each tensor as a device stores it, and at the least two rows of activations and one of the network's
    width for each patch of an image.

    What llama.cpp plans for it only its own library of projectors could tell (mtmd_get_memory_usage), which llama-cpp-python does not
    bring along.

    Source: tools/mtmd/clip.cpp load_tensors (all tensors on the first card), load_hparams (clip.vision.*), clip_graph (the rows).
    """
    weights = sum(pad(tensor.size_bytes, alignment) for tensor in header.tensors)
    read = {name: header.metadata.get(f"clip.vision.{name}") for name in _SIZES}
    sizes = [value for value in read.values() if isinstance(value, int) and 0 < value < 2**20]
    if len(sizes) < len(_SIZES):
        return Projector(label, weights)
    image, patch, n_embd, n_inner = sizes
    n_patches = (image // patch) ** 2
    return Projector(label, weights, n_patches, n_patches * (2 * n_embd + n_inner) * _FLOAT_BYTES)


_SIZES = ("image_size", "patch_size", "embedding_length", "feed_forward_length")
