"""What `log_rendering` takes, and how it refuses the rest."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

import metrana
from metrana.rendering import frames

RGB = np.zeros((4, 6, 3), np.uint8)


class ArrayLike:
    """An object of another library."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if self.array is None:
            raise TypeError("can't convert a tensor on cuda:0; use .cpu()")
        return np.asarray(self.array, dtype)


@pytest.mark.parametrize(
    ("frame", "shape"),
    [
        (RGB, (4, 6, 3)),
        (RGB[:, :, 0], (4, 6)),
        (RGB[:, :, :1], (4, 6)),
        (RGB[:, ::-1], (4, 6, 3)),
        (RGB.view(np.recarray), (4, 6, 3)),
        (torch.zeros((4, 6, 3), dtype=torch.uint8), (4, 6, 3)),
        (ArrayLike(RGB), (4, 6, 3)),
        (np.zeros((2, 16_384), np.uint8), (2, 16_384)),
    ],
)
def test_a_frame_is_taken(frame: Any, shape: tuple[int, ...]) -> None:
    pixels = frames.checked_pixels(frame)
    assert type(pixels) is np.ndarray
    assert (pixels.shape, pixels.dtype) == (shape, np.uint8)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (None, r"frame: must be an array of uint8 of the shape \(H, W, 3\).*not None"),
        ([[0, 0], [0, 0]], "frame: must be an array of uint8.*list"),
        ("frame", "frame: must be an array of uint8"),
        (RGB.astype(np.float32), r"uint8, not float32; multiply by 255 and cast.*frame \* 255"),
        (torch.zeros((4, 6, 3)), "uint8, not float32; multiply by 255"),
        (RGB.astype(np.int64), r"uint8, not int64; cast it.*astype\(numpy.uint8\)"),
        (RGB.astype(np.bool_), "uint8, not bool; cast it"),
        (RGB.astype(object), "uint8, not object"),
        (np.zeros((4, 6, 4), np.uint8), r"not \(4, 6, 4\); leave the alpha channel out"),
        (np.zeros((3, 4, 6), np.uint8), r"not \(3, 4, 6\); put the channels last"),
        (np.zeros((2, 4, 6, 3), np.uint8), r"not \(2, 4, 6, 3\); log one environment's frame"),
        (np.zeros(4, np.uint8), r"frame: must have the shape .*, not \(4,\)"),
        (np.uint8(4), r"frame: must have the shape .*, not \(\)"),
        (np.zeros((5, 6, 3), np.uint8), "an even height and width of 2 to 16384, not 5 and 6"),
        (np.zeros((4, 7), np.uint8), "an even height and width of 2 to 16384, not 4 and 7"),
        (np.zeros((0, 6, 3), np.uint8), "of 2 to 16384, not 0 and 6"),
        (np.zeros((2, 16_386), np.uint8), "of 2 to 16384, not 2 and 16386"),
        (ArrayLike(None), r"frame: cannot read .*use .cpu\(\)"),
    ],
)
def test_a_frame_is_refused_with_what_is_allowed(frame: Any, message: str) -> None:
    with pytest.raises(metrana.MetranaValidationError, match=message):
        frames.checked_pixels(frame)


def test_a_place_is_checked_as_other_calls_check_it() -> None:
    assert frames.checked_place(5.0, np.int32(7), None) == ("default", 7, 5)
    assert frames.checked_place(0, 0, 12).env_id == "12"
    assert frames.checked_place(0, 0, "a:b-1.~_").env_id == "a:b-1.~_"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0, None), "rl_step: must be a whole number of at least 0"),
        ((True, 0, None), "rl_step: must be a whole number"),
        ((2**48, 0, None), "rl_step: must be a whole number"),
        ((0, 1.5, None), "episode: must be a whole number"),
        ((0, None, None), "episode: must be a whole number"),
        ((0, 2**40, None), "episode: must be a whole number"),
        ((0, 0, "a/b"), "env_id: must be 1 to 128 of A-Z"),
        ((0, 0, ".."), "env_id: must be 1 to 128"),
        ((0, 0, ""), "env_id: must be 1 to 128"),
        ((0, 0, "a" * 129), "env_id: must be 1 to 128"),
        ((0, 0, "a\n"), "env_id: must be 1 to 128"),
        ((0, 0, ["a", "b"]), "env_id: must be one environment"),
        ((0, 0, 1.5), "env_id: must be a string or int"),
        ((0, 0, True), "env_id: must be a string or int"),
    ],
)
def test_a_place_is_refused_with_what_is_allowed(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(metrana.MetranaValidationError, match=message):
        frames.checked_place(*arguments)


def test_frames_per_second_become_a_fraction_that_a_clock_can_count() -> None:
    assert frames.checked_fps(30) == 30
    assert frames.checked_fps(29.97) == Fraction(2997, 100)
    assert frames.checked_fps(30000 / 1001) == Fraction(30000, 1001)
    assert frames.checked_fps(np.float32(0.1)) == Fraction(1, 10)
    assert frames.checked_fps(0.001) == Fraction(1, 1000)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1001, "30", True])
def test_frames_per_second_are_refused(fps: Any) -> None:
    with pytest.raises(metrana.MetranaValidationError, match=r"fps: must be a number of at least"):
        frames.checked_fps(fps)


@pytest.mark.parametrize("frame", [RGB[:, ::-1], RGB, RGB[::2], RGB[:, :, 1]])
def test_a_copy_is_equal_whatever_lies_between_the_pixels(frame: Any) -> None:
    source = frame.copy(order="K")
    source[...] = np.random.default_rng(1).integers(0, 255, frame.shape)
    buffer = frames.FramePool().take(source.shape)
    frames.copy(source[::-1], buffer)
    assert (buffer == source[::-1]).all()
    frames.copy(source, buffer)
    assert (buffer == source).all()


def test_a_pool_gives_the_last_buffer_again_and_bounds_what_it_keeps() -> None:
    pool = frames.FramePool()
    first = pool.take((480, 640, 3))
    pool.give_back(first)
    assert pool.take((480, 640, 3)) is first
    assert pool.take((480, 640)) is not first
    # 100 MiB of one size, and then another: no more than 64 MiB stay.
    for _ in range(100):
        pool.give_back(np.empty((1024, 1024), np.uint8))
    assert pool._free_bytes == 64 * 2**20
    pool.give_back(first)
    assert pool._free_bytes == first.nbytes
    assert pool.take((480, 640, 3)) is first
    assert pool._free_bytes == 0
