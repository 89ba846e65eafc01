"""Transformers: a small GPT-2 whose Trainer logs four numbers a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from benchmarks.fits import NONE, TENSORBOARD, WANDB, Training, close_run

_WORDS, _LENGTH, _BATCH, _SENTENCES = 32, 16, 8, 800


def training(logger: str, run: Any, folder: Path, step_count: int) -> Training:
    """Returns one of so many batches."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=_WORDS,
        n_positions=_LENGTH,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    sentences = torch.randint(_WORDS, (_SENTENCES, _LENGTH))
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=TrainingArguments(
            str(folder / "trainer"),
            max_steps=step_count,
            per_device_train_batch_size=_BATCH,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            seed=0,
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=[{"input_ids": sentence, "labels": sentence} for sentence in sentences],
        callbacks=_adapters(logger, run, folder),
    )
    # Without a progress bar it prints every log.
    trainer.remove_callback(_printer())
    return Training(trainer.train, lambda: close_run(run), step_count)


def _printer() -> type[TrainerCallback]:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


def _adapters(logger: str, run: Any, folder: Path) -> list[TrainerCallback]:
    if logger == NONE:
        return []
    if logger == TENSORBOARD:
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        return [TensorBoardCallback(SummaryWriter(str(folder / "events")))]
    if logger == WANDB:
        from transformers.integrations import WandbCallback

        return [WandbCallback()]  # it takes the run that is open
    from metrana.integrations.transformers import MetranaCallback

    return [MetranaCallback(run=run)]
