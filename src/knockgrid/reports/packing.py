"""Packing: numbers as few bytes, and data as JSON that no text in it can break out of."""

import base64
import json
import zlib
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

NOTHING, INFINITE = 65535, 65534
LARGEST = 65533
LEAST = -60.0
"""A power of two: what is nearer to 0 is 0."""


def packed(array: Shaped[np.ndarray, "..."]) -> str:
    """The bytes of an array, little-endian, deflated and in base64."""
    raw = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
    deflate = zlib.compressobj(9, wbits=-15)
    return base64.b64encode(deflate.compress(raw) + deflate.flush()).decode("ascii")


def coded(values: Float[np.ndarray, "..."]) -> dict[str, Any]:
    """Numbers of one sign as 16 bits: steps of equal ratio over the powers of two that they span.

    Four digits of what spans nine powers of ten or less, three of what spans twenty-five. NaN,
    infinity and 0 are kept as such. Of both signs, all are kept as float32.
    """
    finite = values[np.isfinite(values) & (values != 0)]
    if len(finite) and finite.min() < 0 < finite.max():
        return {"data": packed(values.astype("<f4")), "sign": 0, "low": 0, "high": 0}
    size = np.abs(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        powers = np.log2(size)
    seen = powers[np.isfinite(powers)]
    low = max(float(seen.min()) if len(seen) else 0.0, LEAST)
    high = max(float(seen.max(initial=low)), low + 1e-9)
    codes = 1 + np.round((np.clip(powers, low, high) - low) / (high - low) * (LARGEST - 1))
    codes = np.where((size == 0) | (powers < LEAST - 1), 0, codes)
    codes = np.where(np.isinf(size), INFINITE, np.where(np.isnan(values), NOTHING, codes))
    sign = -1 if (values < 0).any() else 1
    return {"data": packed(codes.astype("<u2")), "sign": sign, "low": low, "high": high}


def digits(value: Any) -> float | str | None:
    """A number as JSON holds it, to four digits; NaN is null, infinity its name."""
    if value is None or np.isnan(value):
        return None
    return float(f"{value:.4g}") if np.isfinite(value) else str(float(value))


def for_script(data: Any) -> str:
    """Data as JSON inside a script element: no text in it can end the element."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
