"""The interface of an open model, whatever its format, and the damage that reading it may find."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import ModelDamagedError
from worker.model_files.shape import Header

Array = NDArray[np.float32]


class Damage(Exception):
    """A model that is not what its header promises.

    part: `header`, `mel filters`, `vocabulary`, `length`, a file of a folder, or the name of a tensor. size, expected:
    bytes of the file and those that its tensors need; 0 if the length is right or nothing can be said about it.
    """

    def __init__(self, part: str, size: int = 0, expected: int = 0) -> None:
        self.part, self.size, self.expected = part, size, expected
        super().__init__(part)

    def error(self, path: Path) -> ModelDamagedError:
        """Return the error that names the file and what to do."""
        if self.expected:
            return ModelDamagedError(
                "The model {name} has {size} bytes, but its tensors need {expected}. Delete it and get it again.",
                name=path.name,
                size=self.size,
                expected=self.expected,
            )
        return ModelDamagedError(
            "The model {name} is damaged, or no Whisper model: {part} is not valid. Delete it and get it again.",
            name=path.name,
            part=self.part,
        )


class Weights(ABC):
    """An open model.

    filters: mel filters, shape (mels, 201). tokens: the bytes of each text token. alignment_heads: (layer, head) pairs
    whose attention follows the audio, if the model names them.
    """

    header: Header
    filters: Array
    tokens: Sequence[bytes]
    alignment_heads: Sequence[tuple[int, int]] | None = None

    @abstractmethod
    def __contains__(self, name: str) -> bool: ...

    @abstractmethod
    def tensor(self, name: str) -> Array:
        """Return a tensor in its shape. Raises KeyError if there is none of this name."""

    def vector(self, name: str) -> Array:
        """Return a tensor of one axis, such as a bias, which some files store as a column."""
        return self.tensor(name).reshape(-1)

    @abstractmethod
    def close(self) -> None:
        """Release the files. Arrays that were returned stay valid."""
