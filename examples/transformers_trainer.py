"""Transformers' Trainer: a small language model learns a made-up language, logged by a callback.

Shows the one line that logs a training, `callbacks=[MetranaCallback(...)]`: losses and evaluations
at the Trainer's steps, its arguments and the model's configuration as the run's config. The model
is made here and not downloaded.

    pip install 'metrana[transformers]' torch
    python examples/transformers_trainer.py
    metrana show transformers --project language
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before Transformers is imported

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from metrana.integrations.transformers import MetranaCallback

WORDS = ["the", "a", "small", "large", "cat", "dog", "robot", "sees", "likes", "chases", "."]
SUBJECTS, VERBS = ("cat", "dog", "robot"), ("sees", "likes", "chases")


def noun_phrase(rng: random.Random) -> list[str]:
    """An article, perhaps an adjective, and a noun."""
    adjective = [rng.choice(["small", "large"])] if rng.random() < 0.5 else []
    return [rng.choice(["the", "a"]), *adjective, rng.choice(SUBJECTS)]


def corpus(sentence_count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Sentences of one length, as the Trainer takes them: the labels are the tokens themselves."""
    rng = random.Random(seed)
    found = []
    for _ in range(sentence_count):
        sentence = [*noun_phrase(rng), rng.choice(VERBS), *noun_phrase(rng)]
        sentence += ["."] * (8 - len(sentence))
        tokens = torch.tensor([WORDS.index(word) for word in sentence])
        found.append({"input_ids": tokens, "labels": tokens})
    return found


def main() -> None:
    """Train once, with what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--max-steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)  # of a model this small they would only wait for each other
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(WORDS),
            n_positions=8,
            n_embd=32,
            n_layer=2,
            n_head=2,
            bos_token_id=0,
            eos_token_id=WORDS.index("."),
        )
    )
    callback = MetranaCallback(
        run_name="transformers",
        project_name="language",
        init_args={"resume_strategy": "allow", "tags": ["gpt2", "made-up"]},
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                folder,
                max_steps=arguments.max_steps,
                per_device_train_batch_size=16,
                per_device_eval_batch_size=100,
                learning_rate=1e-2,
                logging_steps=5,
                eval_strategy="steps",
                eval_steps=20,
                save_strategy="no",
                seed=arguments.seed,
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=corpus(2000, arguments.seed),
            eval_dataset=corpus(200, arguments.seed + 1),
            callbacks=[callback],
        )
        trainer.train()
        metrics = trainer.evaluate()
    callback.close()
    print(f"loss of sentences it has not seen: {metrics['eval_loss']:.3f}")


if __name__ == "__main__":
    main()
