"""A small classifier trained with Lightning, logged with one argument: `logger=MetranaLogger(...)`.

Shows where things end up: losses of the training on its steps, those of validation and test as
evaluations, batch by batch on an axis of their own, hyperparameters in the config, and which
checkpoint was best in the attributes.

    python examples/lightning_classifier.py
    metrana show spirals --project lightning
"""

from __future__ import annotations

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from metrana.integrations.lightning import MetranaLogger
from metrana.query import Client

CLASS_COUNT = 3


def spirals(points_per_class: int, noise: float) -> TensorDataset:
    """Arms of a spiral, one a class. Shapes: `(N, 2)` and `(N,)`."""
    radius = torch.linspace(0.1, 1.0, points_per_class).repeat(CLASS_COUNT)
    classes = torch.arange(CLASS_COUNT).repeat_interleave(points_per_class)
    angle = 4.0 * radius + classes * (2.0 * torch.pi / CLASS_COUNT)
    angle = angle + noise * torch.randn_like(angle)
    return TensorDataset(radius[:, None] * torch.stack([angle.sin(), angle.cos()], 1), classes)


class Classifier(LightningModule):
    """A perceptron with two hidden layers.

    Args:
        hidden: Units of each hidden layer.
        lr: Learning rate.
    """

    def __init__(self, hidden: int = 32, lr: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, hidden),
            torch.nn.ReLU(),
            torch.nn.Linear(hidden, hidden),
            torch.nn.ReLU(),
            torch.nn.Linear(hidden, CLASS_COUNT),
        )

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Log and return the loss of a batch."""
        loss, accuracy = self.evaluate(batch)
        self.log_dict({"loss": loss, "accuracy": accuracy})
        return loss

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        """The keys are those of the training: the stage tells them apart."""
        loss, accuracy = self.evaluate(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("accuracy", accuracy)

    def test_step(self, batch: list[torch.Tensor]) -> None:
        """A key of its own: validation and test are both evaluations."""
        self.log("test_accuracy", self.evaluate(batch)[1])

    def evaluate(self, batch: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross entropy and accuracy of a batch."""
        inputs, classes = batch
        scores = self.layers(inputs)
        correct = scores.argmax(1) == classes
        return functional.cross_entropy(scores, classes), correct.float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def main() -> None:
    """Train, test, and read back what was logged."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--save-dir", default="checkpoints", help="folder for checkpoints")
    arguments = parser.parse_args()
    seed_everything(0, verbose=False)

    logger = MetranaLogger(
        run_name="spirals",
        project_name="lightning",
        save_dir=arguments.save_dir,
        init_args={"resume_strategy": "allow", "tags": ["lightning"]},
    )
    trainer = Trainer(
        logger=logger,
        max_epochs=arguments.epochs,
        accelerator="cpu",
        log_every_n_steps=5,
        callbacks=[ModelCheckpoint(monitor="accuracy", mode="max")],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    training = DataLoader(spirals(400, noise=0.1), batch_size=32, shuffle=True)
    held_out = DataLoader(spirals(100, noise=0.1), batch_size=100)
    trainer.fit(Classifier(), training, held_out)
    trainer.test(dataloaders=held_out, ckpt_path="best", verbose=False)
    logger.close()

    with Client() as client, client.hold():
        run = client.run(run_id=logger.version)
        accuracy = client.points(run_id=logger.version, metric_name="test_accuracy")
    print(f"learning rate {run.config['lr']}, best checkpoint of the validation:")
    print(run.attributes["checkpoint/accuracy/best_model_path"])
    print(f"accuracy of that in the test: {accuracy['value'].iloc[-1]:.2f}")


if __name__ == "__main__":
    main()
