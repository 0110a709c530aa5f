"""One stage of training as a LightningModule: a frozen backbone, the adapter that is trained, the objective of the stage.

The step method computes a batch (`steps`); the objective makes a loss of it (`objectives`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import lightning
import torch
from torch import Tensor

from cptlab.adapters.base import Adapter, Policy
from cptlab.backbone import Backbone
from cptlab.backbone.sharding import shard_layers
from cptlab.errors import UserError
from cptlab.training.loop.displacement import displacement_metrics, displacement_sums, gradient_norm
from cptlab.training.loop.sharded_strategy import check_sharded
from cptlab.training.objectives.base import Objective
from cptlab.training.objectives.cpt import CPT
from cptlab.training.objectives.nll import NLL
from cptlab.training.steps.batches import Batch
from cptlab.training.steps.step_method import StepMethod

STAGES = ("comparative", "nll")


class AdapterTraining(lightning.LightningModule):
    """Trains `adapter` on `backbone`: stage 'comparative' with `objective` (CPT eq. 12 by default), or 'nll' on the better
    programs (eq. 13). `opposite` is the second adapter of an objective that has two policies.

    A step is a list of batches, whose gradients are added up one batch at a time; the loss is the mean over the pairs
    of all of them. AdamW, constant rate, gradient-norm clip (CPT V-E; the weight decay is AdamW's default, the paper
    gives none).

    The backbone is no submodule, so it is in no checkpoint, stays in eval mode, and is not copied by DDP. A checkpoint
    holds the adapters' parameters, the collapsed table of a prefix in factors, and plain settings; resuming from one that does not fit this adapter or these settings
    raises UserError.

    `description` is plain data that decides on the outcome beside the module's own settings (data, seeds); `probe` are
    the pairs on which the gradient norm of each term is measured after every validation.
    """

    def __init__(
        self,
        backbone: Backbone,
        adapter: Adapter,
        stage: str = "comparative",
        objective: Objective | None = None,
        *,
        opposite: Adapter | None = None,
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
        self.backbone, self.adapter, self.stage, self.probe = backbone, adapter, stage, probe
        self.method = method or StepMethod("fast" if adapter.fast_step else "plain")
        self.first_objective = objective or CPT()
        self.objective = NLL.after(self.first_objective) if stage == "nll" else self.first_objective
        assert (opposite is not None) == (self.objective.policies == 2)
        self.opposite = opposite
        self.title = title or stage
        self.strict_loading = False
        self.rate, self.decay, self.clip = learning_rate, weight_decay, gradient_clip
        self.settings = {
            "stage": stage,
            "objective": {"name": type(self.first_objective).__name__} | asdict(self.first_objective),
            "step": self.method.name,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "gradient_clip": gradient_clip,
            **(description or {}),
        }
        self.save_hyperparameters(
            self.settings, logger=False
        )  # loggers have the config, whose names these would replace
        self.step_values: dict[str, float] = {}  # of the latest step, all processes together
        self.epoch_sums: dict[str, float] = {}  # of this epoch's steps, kept in checkpoints
        self.validation: dict[str, float] = {}  # of this epoch, empty where it has none
        self._latest: dict[str, Tensor] = {}
        self._validation_sums: dict[str, float] = {}

    @property
    def adapters(self) -> list[Adapter]:
        """What is trained."""
        return [self.adapter] if self.opposite is None else [self.adapter, self.opposite]

    def policies(self) -> list[Policy]:
        return [adapter.policy(self.backbone) for adapter in self.adapters]

    def terms(self, batch: Batch, policies: Sequence[Policy]) -> dict[str, Tensor]:
        """The unweighted terms of this stage's loss, each [B]."""
        batch = batch.better if self.objective.better_only else batch
        return self.objective.terms(self.method.outputs(self.backbone, batch, policies))

    def training_step(self, step: Sequence[Batch], _batch_idx: int) -> Tensor:
        """The loss of a step; its gradient is known when this returns, as only one batch is in memory at a time."""
        tensors = [adapter.tensors() for adapter in self.adapters]
        with self.adapter.seeded_randomness(self.global_step, self.global_rank):
            self._latest, gradients = self._gradients(step, tensors, separately=False)
        # a number whose gradient by the parameters is that of the loss: backward, and with it DDP, starts here
        products = [(t * g).sum() for t, g in zip(_flat(tensors), gradients["loss"], strict=True)]
        carrier = torch.stack(products).sum() if len(products) > 1 else products[0]
        return self._latest["loss"] + (carrier - carrier.detach())

    def _gradients(
        self, step: Sequence[Batch], tensors: Sequence[Sequence[Tensor]], separately: bool
    ) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
        """Of a step: the loss and the unweighted terms, and the gradients of the adapters' `tensors`, in one list, by the
        loss, or by each weighted term."""
        leaves = [adapter.with_tensors(own) for adapter, own in zip(self.adapters, tensors, strict=True)]
        policies = [leaf.policy(self.backbone) for leaf in leaves]
        inputs = [parameter for leaf in leaves for parameter in leaf.parameters()]
        pairs = sum(len(batch) for batch in step)
        values: dict[str, Tensor] = {}
        gradients: dict[str, list[Tensor]] = {}
        with self.method.running(self.backbone, policies):
            for batch in step:
                terms = self.terms(batch, policies)
                weighted = {name: term.sum() / pairs for name, term in self.objective.weighted(terms).items()}
                loss = sum(weighted.values(), start=torch.zeros((), device=self.device))
                means = {"loss": loss} | {name: term.sum() / pairs for name, term in terms.items()}
                for name, value in means.items():
                    values[name] = values[name] + value.detach() if name in values else value.detach()
                asked = list((weighted if separately else {"loss": loss}).items())
                for number, (name, value) in enumerate(asked, 1):
                    found = gradients.setdefault(name, [torch.zeros_like(tensor) for tensor in inputs])
                    if value.requires_grad:
                        parts = self._differentiate(value, inputs, again=number < len(asked))
                        for total, part in zip(found, parts, strict=True):
                            if part is not None:
                                total += part
                del terms, weighted, loss, means, asked  # and with them what the backward pass has kept
        return values, gradients

    def _differentiate(self, value: Tensor, inputs: Sequence[Tensor], again: bool) -> tuple[Tensor | None, ...]:
        """The gradients of a number by `inputs`; `again` where another of the same graph is wanted."""
        with torch.autocast(self.backbone.device.type, enabled=False):
            return torch.autograd.grad(value, inputs, retain_graph=again, allow_unused=True)

    def trained(self) -> list[Tensor]:
        return [parameter for adapter in self.adapters for parameter in adapter.parameters()]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.trained(), lr=self.rate, weight_decay=self.decay)

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clip, and note the step's values. Gradients are those of all processes here, losses become so."""
        norm = torch.nn.utils.clip_grad_norm_(self.trained(), self.clip)
        values = torch.stack(list(self._latest.values()))
        if self.trainer.world_size > 1:
            values = self.trainer.strategy.reduce(values, reduce_op="mean")
        self.step_values = dict(zip((*self._latest, "grad_norm"), [*values.tolist(), norm.item()], strict=True))
        for name, value in (self.step_values | {"steps": 1}).items():
            self.epoch_sums[name] = self.epoch_sums.get(name, 0) + value
        self.log_dict({f"{self.stage}/{name}": value for name, value in self.step_values.items()}, batch_size=1)

    def on_train_epoch_start(self) -> None:
        self.epoch_sums, self.validation = {}, {}

    @property
    def epoch_means(self) -> dict[str, float]:
        """The step values, averaged over this epoch so far, also where it was interrupted."""
        return {n: v / self.epoch_sums["steps"] for n, v in self.epoch_sums.items() if n != "steps"}

    def on_train_epoch_end(self) -> None:
        self.log_dict({f"{self.stage}/epoch_{name}": value for name, value in self.epoch_means.items()})

    def configure_model(self) -> None:
        """Share out the backbone's layers where the strategy has a mesh of devices for that."""
        if self.device_mesh is not None:
            check_sharded(self.backbone, self.adapters, self.method.compiled > 0)
            shard_layers(self.backbone, self.device_mesh["data_parallel"])

    def on_fit_start(self) -> None:
        self._move_models()

    def on_validation_start(self) -> None:
        self._move_models()

    def _move_models(self) -> None:
        """Move the backbone to the trainer's device, and the models of policies, which may share its parameters."""
        if self.backbone.device != self.device:
            for policy in (Policy(self.backbone), *self.policies()):
                torch.nn.Module.to(policy.backbone.model, self.device)

    def on_validation_epoch_start(self) -> None:
        self._validation_sums = {}

    def validation_step(self, batch: Batch, _batch_idx: int) -> None:
        """In either stage: the terms of the first one's objective, and the displacement."""
        policies, objective = self.policies(), self.first_objective
        with self.method.running(self.backbone, policies):
            outputs = self.method.outputs(self.backbone, batch, policies)
            if objective.better_only:
                terms = objective.terms(self.method.outputs(self.backbone, batch.better, policies))
            else:
                terms = objective.terms(outputs)
            sums = displacement_sums(outputs, terms, objective)
        for name, value in sums.items():
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
        """The gradient norm of each weighted term's mean over the probe's pairs: how hard each pulls the adapter."""
        tensors = [adapter.tensors() for adapter in self.adapters]
        _, gradients = self._gradients([batch.to(self.device) for batch in self.probe], tensors, separately=True)
        parameters, norms = self.trained(), {}
        for name, found in gradients.items():
            norms[name] = gradient_norm(torch.autograd.grad(_flat(tensors), parameters, found, retain_graph=True))
        return norms

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["adapter"] = self._description()
        # of factors their product, which is what the policy computes with and what is exported
        made = [tensor for adapter in self.adapters for tensor in adapter.tensors() if not tensor.is_leaf]
        checkpoint["collapsed"] = [tensor.detach().cpu().clone() for tensor in made]
        checkpoint["epoch_sums"] = dict(self.epoch_sums)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Refuse a checkpoint that would load in part, or continue another run. Raises UserError."""
        advice = "Resume with the settings that the run was started with, or start a new run in another directory."
        if checkpoint.get("adapter") != self._description():
            raise UserError(
                f"The checkpoint's adapter is {_described(checkpoint.get('adapter') or {})}; this one is "
                f"{_described(self._description())}. {advice}"
            )
        held, wanted = sorted(checkpoint["state_dict"]), sorted(self.state_dict())
        if held != wanted:
            raise UserError(f"The checkpoint holds the parameters {held}; {wanted} are wanted. {advice}")
        before, now = checkpoint["hyper_parameters"], self.settings
        changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        if changed:
            values = "; ".join(f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in changed)
            raise UserError(f"The checkpoint was made with other settings ({values}). {advice}")
        self.epoch_sums = dict(checkpoint["epoch_sums"])

    def _description(self) -> dict:
        return {"kind": self.adapter.kind, **self.adapter.description()}


def _flat(tensors: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [tensor for own in tensors for tensor in own]


def _described(adapter: dict) -> str:
    rest = ", ".join(f"{name} {value}" for name, value in adapter.items() if name != "kind")
    return f"{adapter.get('kind', 'unknown')} ({rest})"
