"""Frames on their way in: what `log_rendering` takes, and the buffers that frames wait in."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from metrana import checks, values
from metrana.errors import MetranaValidationError
from metrana.settings import MAX_FPS, MIN_FPS

Pixels = npt.NDArray[np.uint8]

# Enough for 30000/1001, and a clock that 32 bits hold.
_MAX_FPS_DENOMINATOR: Final = 1001
# H.264's encoder takes no more.
_MAX_SIDE: Final = 16_384
_MAX_RL_STEP: Final = 2**48 - 1
_MAX_EPISODE: Final = 2**40 - 1
_ENV_ID: Final = re.compile(r"[A-Za-z0-9._~:-]{1,128}")
_SHAPES: Final = "(H, W, 3), (H, W) or (H, W, 1)"
# Converters of pixels read a little more than there is, in whole registers.
_PADDING_BYTES: Final = 64
_MAX_FREE_BYTES: Final = 64 * 1024 * 1024


class Format(NamedTuple):
    """What all frames of a video have in common."""

    shape: tuple[int, ...]
    """`(H, W, 3)` or, in gray, `(H, W)`."""
    fps: Fraction


class Place(NamedTuple):
    """Which video a frame belongs to, and when it was taken."""

    env_id: str
    episode: int
    rl_step: int


def checked_place(rl_step: Any, episode: Any, env_id: Any) -> Place:
    """Check where a frame belongs, as the other log calls check it.

    Raises:
        MetranaValidationError: For what is not allowed.
    """
    return Place(
        rl_step=checks.whole_number("rl_step", rl_step, maximum=_MAX_RL_STEP),
        episode=checks.whole_number("episode", episode, maximum=_MAX_EPISODE),
        env_id="default" if env_id is None else _checked_env_id(env_id),
    )


def checked_fps(fps: Any) -> Fraction:
    """Frames per second as the fraction that a video's clock counts in.

    Raises:
        MetranaValidationError: For anything but a number of 0.001 to 1000.
    """
    number = checks.number("fps", fps, minimum=MIN_FPS, maximum=MAX_FPS)
    return Fraction(number).limit_denominator(_MAX_FPS_DENOMINATOR)


def checked_pixels(frame: Any) -> Pixels:
    """A frame's pixels, where they lie.

    Args:
        frame: uint8, an array of any library in this machine's memory. Shape: `(H, W, 3)`,
            `(H, W)` or `(H, W, 1)`; even sizes of 2 to 16,384.

    Returns:
        Shape: `(H, W, 3)` or, in gray, `(H, W)`.

    Raises:
        MetranaValidationError: For anything else.
    """
    array = frame if type(frame) is np.ndarray else _as_array(frame)
    if array.dtype != np.uint8:
        raise MetranaValidationError(f"frame: must be uint8, not {array.dtype}{_cast(array)}")
    shape = array.shape
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]
    elif array.ndim != 2 and (array.ndim != 3 or shape[2] != 3):
        raise MetranaValidationError(
            f"frame: must have the shape {_SHAPES}, not {shape}{_rearrangement(shape)}"
        )
    height, width = shape[:2]
    if height % 2 or width % 2 or not 2 <= min(height, width) <= max(height, width) <= _MAX_SIDE:
        raise MetranaValidationError(
            f"frame: must have an even height and width of 2 to {_MAX_SIDE}, not {height} and "
            f"{width}"
        )
    return array


def copy(pixels: Pixels, buffer: Pixels) -> None:
    """Copy a frame into a buffer of its shape."""
    if pixels.flags.c_contiguous:
        # NumPy would let go of the interpreter's lock for it, and the caller would have to wait
        # until a worker gives it back: that takes longer than the copy.
        buffer.data.cast("B")[:] = pixels.data.cast("B")
    else:
        np.copyto(buffer, pixels)


class FramePool:
    """Buffers that are used again: one that is new costs more to fill than the copy itself.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._free: dict[tuple[int, ...], list[Pixels]] = {}
        self._free_bytes = 0

    def take(self, shape: tuple[int, ...]) -> Pixels:
        """A buffer of this shape; what is in it is of no use."""
        free = self._free.get(shape)
        if free:
            buffer = free.pop()
            self._free_bytes -= buffer.nbytes
            return buffer
        size = int(np.prod(shape))
        return np.empty(size + _PADDING_BYTES, np.uint8)[:size].reshape(shape)

    def give_back(self, buffer: Pixels) -> None:
        """Let others have a buffer."""
        if self._free_bytes + buffer.nbytes > _MAX_FREE_BYTES:
            # Most likely of a size that is no longer recorded.
            kept = self._free.get(buffer.shape, [])
            self._free = {buffer.shape: kept}
            self._free_bytes = len(kept) * buffer.nbytes
            if self._free_bytes + buffer.nbytes > _MAX_FREE_BYTES:
                return
        self._free.setdefault(buffer.shape, []).append(buffer)
        self._free_bytes += buffer.nbytes


def _checked_env_id(env_id: Any) -> str:
    found = values.as_env_ids(env_id)
    if isinstance(found, list):
        raise checks.refusal("env_id", env_id, "one environment")
    if _ENV_ID.fullmatch(found) is None or found in (".", ".."):
        raise checks.refusal("env_id", found, "1 to 128 of A-Z a-z 0-9 . _ ~ : - (not . or ..)")
    return found


def _as_array(frame: Any) -> npt.NDArray[Any]:
    if not hasattr(frame, "__array__") and not hasattr(frame, "__array_interface__"):
        raise checks.refusal("frame", frame, f"an array of uint8 of the shape {_SHAPES}")
    try:
        return np.asarray(frame)
    except Exception as error:  # whatever its library raises: a lost device, a tensor elsewhere
        raise MetranaValidationError(
            f"frame: cannot read {checks.shown(frame)}: {error}"
        ) from error


def _cast(array: npt.NDArray[Any]) -> str:
    """How what is no uint8 becomes it."""
    if array.dtype.kind == "f":
        return "; multiply by 255 and cast, if it is of 0 to 1: (frame * 255).astype(numpy.uint8)"
    if array.dtype.kind == "b":
        return "; cast it: frame.astype(numpy.uint8) * 255"
    if array.dtype.kind in "iu":
        return "; cast it, if it is of 0 to 255: frame.astype(numpy.uint8)"
    return ""


def _rearrangement(shape: tuple[int, ...]) -> str:
    """How what has another shape gets one of those allowed."""
    if len(shape) == 3 and shape[2] == 4:
        return "; leave the alpha channel out: frame[:, :, :3]"
    if len(shape) == 3 and shape[0] in (1, 3):
        return "; put the channels last: frame.transpose(1, 2, 0)"
    if len(shape) == 4:
        return "; log one environment's frame a call"
    return ""
