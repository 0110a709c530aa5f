"""One stage of training as a LightningModule: a frozen backbone, a trainable prefix, the losses of the stage.

Deliberately plain: one forward with the prefix over both programs of a pair, one without, the printed losses.
"""

from __future__ import annotations

from dataclasses import asdict

import lightning
import torch
from torch import Tensor

from cptlab.backbone import Backbone, Prefix
from cptlab.errors import UserError
from cptlab.training import losses
from cptlab.training.datamodule import Batch
from cptlab.training.diagnostics import displacement_metrics, displacement_sums, gradient_norms
from cptlab.training.objective import Objective

STAGES = ("comparative", "nll")


class PrefixTuning(lightning.LightningModule):
    """Trains `prefix` on `backbone`: stage 'comparative' (CPT eq. 12) or 'nll' on the better programs (eq. 13).

    The loss is the mean over the pairs of a step. AdamW, constant rate, gradient-norm clip (CPT V-E; the weight decay
    is AdamW's default, the paper gives none).

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
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        gradient_clip: float = 1.0,
        description: dict | None = None,
        probe: Batch | None = None,
        title: str | None = None,
    ) -> None:
        super().__init__()
        assert stage in STAGES
        self.backbone, self.prefix, self.stage, self.probe = backbone, prefix, stage, probe
        self.objective = objective or Objective()
        self.title = title or stage
        self.strict_loading = False
        self.save_hyperparameters(
            {
                "stage": stage,
                "objective": asdict(self.objective),
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

    def code_log_probs(self, batch: Batch, prefix: Prefix | None) -> Tensor:
        """Log-probabilities [rows, C, V] of every code token's place, with or without a prefix."""
        logits = self.backbone.logits(batch.input_ids, batch.attention_mask, prefix)
        return losses.log_probs(logits[:, batch.start - 1 : -1])

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The unweighted terms of this stage's loss, each [B]."""
        if self.stage == "nll":
            batch = batch.better()
            return self.objective.nll_terms(self.code_log_probs(batch, self.prefix), batch.tokens, batch.code)
        with torch.no_grad():
            reference = self.code_log_probs(batch, None)
        policy = self.code_log_probs(batch, self.prefix)
        return self.objective.comparative_terms(policy, reference, batch.tokens, batch.mask, batch.code)

    def training_step(self, batch: Batch, _batch_idx: int) -> Tensor:
        terms = self.terms(batch)
        loss = sum(self.objective.weighted(terms).values()).mean()
        self._latest = {"loss": loss.detach()} | {name: term.detach().mean() for name, term in terms.items()}
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.prefix.parameters(), lr=self.hparams.learning_rate, weight_decay=self.hparams.weight_decay
        )

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clip, and note the step's values. Gradients are those of all processes here, losses become so."""
        norm = torch.nn.utils.clip_grad_norm_(self.prefix.parameters(), self.hparams.gradient_clip)
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
        policy, reference = self.code_log_probs(batch, self.prefix), self.code_log_probs(batch, None)
        sums = displacement_sums(policy, reference, batch.tokens, batch.mask, batch.code, self.objective)
        for name, value in sums.items():
            self._validation_sums[name] = self._validation_sums.get(name, 0.0) + batch.counted * value

    def on_validation_epoch_end(self) -> None:
        """Log the diagnostics of the whole split, and the gradient norm of each term on the probe."""
        sums = self._validation_sums
        if self.trainer.world_size > 1:
            total = torch.tensor(list(sums.values()), dtype=torch.float64, device=self.device)
            sums = dict(zip(sums, self.trainer.strategy.reduce(total, reduce_op="sum").tolist(), strict=True))
        self.validation = displacement_metrics(sums)
        if self.probe is not None:
            with torch.inference_mode(False), torch.enable_grad():
                weighted = self.objective.weighted(self.terms(self.probe.to(self.device)))
                norms = gradient_norms(weighted, list(self.prefix.parameters()))
            self.validation |= {f"grad_{name}": norm for name, norm in norms.items()}
        self.log_dict({f"{self.stage}/val/{name}": value for name, value in self.validation.items()})

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["prefix_table"] = self.prefix.collapsed().detach().cpu().clone()
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
