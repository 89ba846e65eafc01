"""Videos of environments (extra `rendering`): frames are encoded by threads, into files.

```
log_rendering ─▶ frames.py: checks, one copy ─▶ recorder.py: queue, workers ─▶ video.py: one file
                                                                 encoder.py: H.264 ─┴─ mp4.py: boxes
```

Importing this package, `names` or `frames` needs no PyAV; `recorder` does.
"""
