"""One stage of training as a LightningModule: a frozen backbone, a trainable prefix, the objective of the stage.

The step method computes a batch (`steps`); the objective makes a loss of it (`objectives`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import lightning
import torch
from torch import Tensor

from cptlab.adapters.prefix import Prefix, prefix_from_table
from cptlab.backbone import Backbone
from cptlab.errors import UserError
from cptlab.training.loop.displacement import displacement_metrics, displacement_sums, gradient_norm
from cptlab.training.objectives.base import Objective
from cptlab.training.objectives.cpt import CPT
from cptlab.training.objectives.single_prefix import SinglePrefix
from cptlab.training.steps.batches import Batch
from cptlab.training.steps.choice import StepMethod

STAGES = ("comparative", "nll")


class PrefixTuning(lightning.LightningModule):
    """Trains `prefix` on `backbone`: stage 'comparative' with `objective` (CPT eq. 12 by default), or 'nll' on the better
    programs (eq. 13). `opposite` is the second prefix of an objective that has two.

    A step is a list of batches, whose gradients are added up one batch at a time; the loss is the mean over the pairs
    of all of them. AdamW, constant rate, gradient-norm clip (CPT V-E; the weight decay is AdamW's default, the paper
    gives none).

    The backbone is no submodule, so it is in no checkpoint, stays in eval mode, and is not copied by DDP. A checkpoint
    holds the prefix's parameters (table or factors), the collapsed table as `prefix_table`, and plain settings;
    resuming from one that does not fit this prefix or these settings raises UserError.

    `description` is plain data that decides on the outcome beside the module's own settings (data, seeds); `probe` are
    the pairs on which the gradient norm of each term is measured after every validation.
    """

    def __init__(
        self,
        backbone: Backbone,
        prefix: Prefix,
        stage: str = "comparative",
        objective: Objective | None = None,
        *,
        opposite: Prefix | None = None,
        method: StepMethod | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        gradient_clip: float = 1.0,
        description: dict | None = None,
        probe: Sequence[Batch] = (),
        title: str | None = None,
    ) -> None:
        super().__init__()
        assert stage in STAGES
        self.backbone, self.prefix, self.stage, self.probe = backbone, prefix, stage, probe
        self.method = method or StepMethod()
        self.first_objective = objective or CPT()
        self.objective = SinglePrefix.after(self.first_objective) if stage == "nll" else self.first_objective
        assert (opposite is not None) == (self.objective.prefixes == 2)
        self.opposite = opposite
        self.title = title or stage
        self.strict_loading = False
        self.save_hyperparameters(
            {
                "stage": stage,
                "objective": {"name": type(self.first_objective).__name__} | asdict(self.first_objective),
                "step": self.method.name,
                "learning_rate": learning_rate,
                "weight_decay": weight_decay,
                "gradient_clip": gradient_clip,
                **(description or {}),
            }
        )
        self.step_values: dict[str, float] = {}  # of the latest step, all processes together
        self.epoch_sums: dict[str, float] = {}  # of this epoch's steps, kept in checkpoints
        self.validation: dict[str, float] = {}  # of the latest validation
        self._validation_sums: dict[str, float] = {}

    @property
    def prefixes(self) -> list[Prefix]:
        """What is trained."""
        return [self.prefix] if self.opposite is None else [self.prefix, self.opposite]

    def terms(self, batch: Batch, prefixes: Sequence[Prefix]) -> dict[str, Tensor]:
        """The unweighted terms of this stage's loss, each [B]."""
        batch = batch.better if self.objective.better_only else batch
        return self.objective.terms(self.method.outputs(self.backbone, batch, prefixes))

    def training_step(self, step: Sequence[Batch], _batch_idx: int) -> Tensor:
        """The loss of a step; its gradient is known when this returns, as only one batch is in memory at a time."""
        tables = [prefix.collapsed() for prefix in self.prefixes]
        values, gradients = self._gradients(step, tables, separately=False)
        self._latest = values
        carrier = sum((table * gradient).sum() for table, gradient in zip(tables, gradients["loss"], strict=True))
        return values["loss"] + (carrier - carrier.detach())

    def _gradients(
        self, step: Sequence[Batch], tables: Sequence[Tensor], separately: bool
    ) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
        """Of a step: the loss and the unweighted terms, and the gradients of `tables` by the loss, or by each weighted
        term."""
        leaves = [prefix_from_table(table.detach(), self.backbone.shape) for table in tables]
        pairs = sum(len(batch) for batch in step)
        values: dict[str, Tensor] = {}
        gradients: dict[str, list[Tensor]] = {}
        for batch in step:
            with self.method.running(self.backbone):
                terms = self.terms(batch, leaves)
            weighted = {name: term.sum() / pairs for name, term in self.objective.weighted(terms).items()}
            loss = sum(weighted.values())
            means = {"loss": loss} | {name: term.sum() / pairs for name, term in terms.items()}
            for name, value in means.items():
                values[name] = values[name] + value.detach() if name in values else value.detach()
            asked = list((weighted if separately else {"loss": loss}).items())
            for number, (name, value) in enumerate(asked, 1):
                found = gradients.setdefault(name, [torch.zeros_like(table) for table in tables])
                if value.requires_grad:
                    parts = self._differentiate(value, leaves, again=number < len(asked))
                    for total, part in zip(found, parts, strict=True):
                        if part is not None:
                            total += part
            del terms, weighted, loss, means, asked, value  # and with them what the backward pass has kept
        return values, gradients

    def _differentiate(self, value: Tensor, leaves: Sequence[Prefix], again: bool) -> tuple[Tensor | None, ...]:
        """The gradient of a number by the prefixes' tables; `again` where another of the same graph is wanted."""
        with torch.autocast(self.backbone.device.type, enabled=False):
            tables = [leaf.table for leaf in leaves]
            return torch.autograd.grad(value, tables, retain_graph=again, allow_unused=True)

    def trained(self) -> list[Tensor]:
        return [parameter for prefix in self.prefixes for parameter in prefix.parameters()]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.trained(), lr=self.hparams.learning_rate, weight_decay=self.hparams.weight_decay)

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clip, and note the step's values. Gradients are those of all processes here, losses become so."""
        norm = torch.nn.utils.clip_grad_norm_(self.trained(), self.hparams.gradient_clip)
        values = torch.stack(list(self._latest.values()))
        if self.trainer.world_size > 1:
            values = self.trainer.strategy.reduce(values, reduce_op="mean")
        self.step_values = dict(zip((*self._latest, "grad_norm"), [*values.tolist(), norm.item()], strict=True))
        for name, value in (self.step_values | {"steps": 1}).items():
            self.epoch_sums[name] = self.epoch_sums.get(name, 0) + value
        self.log_dict({f"{self.stage}/{name}": value for name, value in self.step_values.items()}, batch_size=1)

    def on_train_epoch_start(self) -> None:
        self.epoch_sums = {}

    @property
    def epoch_means(self) -> dict[str, float]:
        """The step values, averaged over this epoch so far, also where it was interrupted."""
        return {n: v / self.epoch_sums["steps"] for n, v in self.epoch_sums.items() if n != "steps"}

    def on_train_epoch_end(self) -> None:
        self.log_dict({f"{self.stage}/epoch_{name}": value for name, value in self.epoch_means.items()})

    def on_fit_start(self) -> None:
        self._move_backbone()

    def on_validation_start(self) -> None:
        self._move_backbone()

    def _move_backbone(self) -> None:
        if self.backbone.device != self.device:
            self.backbone.model.to(self.device)

    def on_validation_epoch_start(self) -> None:
        self._validation_sums = {}

    def validation_step(self, batch: Batch, _batch_idx: int) -> None:
        """In either stage: the terms of the first one's objective, and the displacement."""
        outputs, objective = self.method.outputs(self.backbone, batch, self.prefixes), self.first_objective
        if objective.better_only:
            terms = objective.terms(self.method.outputs(self.backbone, batch.better, self.prefixes))
        else:
            terms = objective.terms(outputs)
        for name, value in displacement_sums(outputs, terms, objective).items():
            self._validation_sums[name] = self._validation_sums.get(name, 0.0) + batch.counted * value

    def on_validation_epoch_end(self) -> None:
        """Log the diagnostics of the whole split, and the gradient norm of each term on the probe."""
        sums = self._validation_sums
        if self.trainer.world_size > 1:
            total = torch.tensor(list(sums.values()), dtype=torch.float64, device=self.device)
            sums = dict(zip(sums, self.trainer.strategy.reduce(total, reduce_op="sum").tolist(), strict=True))
        self.validation = displacement_metrics(sums)
        if self.probe:
            with torch.inference_mode(False), torch.enable_grad():
                self.validation |= {f"grad_{name}": norm for name, norm in self._term_norms().items()}
        self.log_dict({f"{self.stage}/val/{name}": value for name, value in self.validation.items()})

    def _term_norms(self) -> dict[str, float]:
        """The gradient norm of each weighted term's mean over the probe's pairs: how hard each pulls the prefix."""
        tables = [prefix.collapsed() for prefix in self.prefixes]
        _, gradients = self._gradients([batch.to(self.device) for batch in self.probe], tables, separately=True)
        parameters, norms = self.trained(), {}
        for name, found in gradients.items():
            norms[name] = gradient_norm(torch.autograd.grad(tables, parameters, found, retain_graph=True))
        return norms

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["prefix_table"] = self.prefix.collapsed().detach().cpu().clone()
        if self.opposite is not None:
            checkpoint["opposite_table"] = self.opposite.collapsed().detach().cpu().clone()
        checkpoint["prefix_shape"] = self._shape()
        checkpoint["epoch_sums"] = dict(self.epoch_sums)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Refuse a checkpoint that would load in part, or continue another run. Raises UserError."""
        advice = "Resume with the settings that the run was started with, or start a new run in another directory."
        if checkpoint["prefix_shape"] != self._shape():
            raise UserError(
                f"The checkpoint's prefix has {_describe(checkpoint['prefix_shape'])}; this one has "
                f"{_describe(self._shape())}. {advice}"
            )
        held, wanted = sorted(checkpoint["state_dict"]), sorted(self.state_dict())
        if held != wanted:
            raise UserError(f"The checkpoint holds the parameters {held}; {wanted} are wanted. {advice}")
        before, now = checkpoint["hyper_parameters"], dict(self.hparams)
        changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        if changed:
            values = "; ".join(f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in changed)
            raise UserError(f"The checkpoint was made with other settings ({values}). {advice}")
        self.epoch_sums = dict(checkpoint["epoch_sums"])

    def _shape(self) -> dict:
        return {"length": self.prefix.length, "rank": self.prefix.rank, **asdict(self.prefix.shape)}


def _describe(shape: dict) -> str:
    factors = "no factors" if shape["rank"] is None else f"factors of rank {shape['rank']}"
    layers, heads, dim = shape["num_layers"], shape["num_kv_heads"], shape["head_dim"]
    return f"{shape['length']} positions, {layers} layers x {heads} key/value heads x {dim}, {factors}"
