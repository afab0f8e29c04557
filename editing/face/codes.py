"""Latent codes as text, so that a recipe stays JSON."""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from editing.errors import EditingError

MAX_CODES_BYTES = 2 * 2**20


@dataclass(frozen=True)
class Codes:
    """A float16 tensor as text: base64 of compressed safetensors bytes, so that a recipe stays JSON and runs no code.

    Attributes:
        text: ASCII; equal texts are equal codes.
    """

    text: str

    @classmethod
    def of(cls, tensor: Tensor) -> Codes:
        """Rounds to float16; :meth:`tensor` gives the rounded values back.

        Raises:
            EditingError: for values that float16 cannot hold.
        """
        half = tensor.detach().to("cpu", torch.float16).contiguous()
        if not bool(torch.isfinite(half).all()):
            raise EditingError("these codes are not finite numbers, so they cannot be kept; undo the last edit")
        return cls(base64.b64encode(zlib.compress(safetensors.torch.save({"codes": half}), 6)).decode("ascii"))

    def tensor(self) -> Tensor:
        """Float32 copy.

        Raises:
            EditingError: if the text is damaged or unpacks to more than 2 MiB.
        """
        try:
            unpack = zlib.decompressobj()
            data = unpack.decompress(base64.b64decode(self.text, validate=True), MAX_CODES_BYTES)
            codes = None if unpack.unconsumed_tail else safetensors.torch.load(data)["codes"]
        except (binascii.Error, zlib.error, safetensors.SafetensorError, KeyError, ValueError) as error:
            raise EditingError("the recipe's codes are damaged; use another copy of the file") from error
        if codes is None:
            raise EditingError("the recipe's codes are larger than any face; it is damaged, use another file")
        if codes.dtype != torch.float16 or not bool(torch.isfinite(codes).all()):
            raise EditingError("the recipe's codes are not finite float16 numbers; use another copy of the file")
        return codes.float()
