"""Videos as encoders leave them to their writer."""

from __future__ import annotations

import io
import json
import secrets
from pathlib import Path
from typing import Any

import av
import numpy as np

import metrana

WIDTH, HEIGHT = 64, 48


def encode(frame_count: int = 4, seed: int = 0) -> bytes:
    """Encodes noise, which takes some 2 kB a frame; another seed is another video."""
    chance = np.random.default_rng(seed)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "18", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(frame_count):
            image = chance.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def frame_count(video: bytes) -> int:
    """How many frames a player shows."""
    with av.open(io.BytesIO(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def render(run: metrana.Run, video: bytes, rendering_id: str | None = None, **fields: Any) -> str:
    """Gives a finished video to a run's writer; returns its id.

    Args:
        run: The run.
        video: The file.
        rendering_id: Its id; None: a random one.
        fields: What differs from the first part of episode 0 of environment `env`.
    """
    rendering_id = rendering_id or secrets.token_hex(16)
    folder = run._rendering_folder()
    assert folder is not None
    described = {"version": 1, "env_id": "env", "episode": 0, "rl_step": 0, "part": 1}
    size = {"width": WIDTH, "height": HEIGHT, "fps": 30.0}
    sidecar = json.dumps({**described, **size, **fields})
    Path(folder, f"{rendering_id}.json").write_text(sidecar)
    temporary = Path(folder, f"{rendering_id}.tmp")
    temporary.write_bytes(video)
    temporary.rename(temporary.with_suffix(".mp4"))
    run._rendering_finished(rendering_id)
    return rendering_id
