"""GRPO: reinforcement learning of a LoRA with tests and the quality score as rewards, by TRL's trainer.

Group relative policy optimisation (https://arxiv.org/abs/2402.03300): n programs of a task are drawn from the policy, and
each is made likelier by how far its reward lies above the mean of its group. No pairs are built. It stands here as a
comparison with training on pairs: TRL optimises, and the programs are drawn, cleaned and judged as everywhere else.

    reward = passed * (1 if all tests pass else 0) + quality * (score / 10)
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from cptlab.adapters.lora import LoRA
from cptlab.backbone import Backbone
from cptlab.decoding import Sampling, generate
from cptlab.errors import UserError
from cptlab.progress import progress_bar
from cptlab.records import Completion, Prompt, Task
from cptlab.settings.setting import Setting, check_settings
from cptlab.systems.cleaning import cleaned
from cptlab.systems.judge import Judge
from cptlab.systems.loading import LoadedSystem

SEED_STEP = 1 << 33  # between the seeds of two batches; a user's seed is smaller


@dataclass(frozen=True)
class GRPO:
    """What GRPO does. Each optimizer step draws `n` programs for each of `tasks_per_step` tasks and judges them."""

    steps: Annotated[int, Setting("Optimizer steps.", at_least=1)] = 60
    tasks_per_step: Annotated[int, Setting("Tasks of a step.", at_least=1)] = 4
    n: Annotated[int, Setting("Programs of a task that are compared with each other: the group.", at_least=2)] = 8
    learning_rate: Annotated[float, Setting("Peak of the learning rate, which falls to 0.", above=0)] = 2e-4
    beta: Annotated[float, Setting("Weight of the KL divergence from the backbone.", at_least=0)] = 0.0
    passed: Annotated[float, Setting("Reward of a program that passes all tests.", at_least=0)] = 1.0
    quality: Annotated[float, Setting("Reward of a program with a score of 10, in proportion below.", at_least=0)] = 1.0
    save_every: Annotated[int, Setting("Steps between checkpoints, from which a killed run goes on.", at_least=1)] = 5

    def __post_init__(self) -> None:
        check_settings(self)
        if self.passed == self.quality == 0:
            raise UserError("With passed=0 and quality=0 there is no reward. Set one of them above 0.")


class Rollouts:
    """The programs that TRL learns from, with their rewards: drawn with our engine, cleaned and judged as elsewhere.

    TRL's data set holds the ids of the tasks in the place of prompts.
    """

    def __init__(self, system: LoadedSystem, tasks: Sequence[Task], judge: Judge, *, seed: int) -> None:
        self.system, self.judge, self.seed = system, judge, seed
        self.tasks = {task.id: task for task in tasks}

    def __call__(self, ids: Sequence[str], trainer: Any) -> dict[str, Any]:
        """Return token ids and rewards of one program for each id; equal ids, which follow each other, are one group."""
        policy, sampling = self.system.policy, self.system.decoding.sampling
        model = policy.backbone.model
        was_training = model.training
        model.eval()
        groups = list(dict.fromkeys(ids))
        prompts = {name: self.system.shown_prompt(self.tasks[name]) for name in groups}
        n = len(ids) // len(groups)
        seed = self.seed + SEED_STEP * int(trainer.state.global_step)
        drawn: list[Completion] = []
        asked = [(name, prompts[name]) for name in groups]
        for some in generate(policy.backbone, asked, n, sampling, seed=seed):
            drawn += some
        model.train(was_training)
        order = {name: place for place, name in enumerate(groups)}
        drawn.sort(key=lambda one: (order[one.task_id], one.sample))
        found = [cleaned(one, self.tasks[one.task_id], prompts[one.task_id]) for one in drawn]
        scores = self.judge.qualities([one.program for one in found])
        verdicts = self.judge.verdicts([(one.program, self.tasks[one.task_id]) for one in found])
        written = [token_ids(policy.backbone, one, prompts[one.task_id], sampling) for one in drawn]
        return {
            "prompt_ids": [policy.backbone.encode_prompt(prompts[one.task_id].text) for one in drawn],
            "completion_ids": written,
            "logprobs": None,  # the policy itself wrote them: no importance weights
            "passed": [float(verdict.passed) for verdict in verdicts],
            "quality": [quality.score / 10 for quality in scores],
        }


def token_ids(backbone: Backbone, one: Completion, prompt: Prompt, sampling: Sampling) -> list[int]:
    """Return the tokens of a program, with the end-of-text token where that ended it: when to end is learnt, too.

    An empty answer is that token alone, as TRL needs one.
    """
    ids = backbone.encode_completion(one.raw)
    by_token = one.finished and sampling.stopping(prompt).end(prompt.code, one.raw) < 0
    end: Any = backbone.tokenizer.eos_token_id
    return [*ids, end] if by_token or not ids else ids


def passed(passed: Sequence[float], **_: Any) -> list[float | None]:
    return list(passed)


def quality(quality: Sequence[float], **_: Any) -> list[float | None]:
    return list(quality)


def check_trl() -> None:
    """Raise UserError where TRL is not installed."""
    if find_spec("trl") is None:
        raise UserError("GRPO needs TRL, which is not installed. Install it with: pip install 'cptlab[grpo]'")


def train_grpo(
    lora: LoRA,
    system: LoadedSystem,
    tasks: Sequence[Task],
    judge: Judge,
    options: GRPO,
    *,
    directory: Path,
    seed: int = 0,
    report: Callable[[Mapping[str, float], int], object] = lambda metrics, step: None,
) -> list[dict[str, float]]:
    """Train `lora`, the adapter of `system`, in place on `tasks`, and return what TRL logged at each step.

    Checkpoints lie in `directory`, and a killed training goes on from the last one. `report` gets the metrics of a step.
    Raises UserError where TRL is not installed.
    """
    check_trl()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func; its version is pinned
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from transformers.trainer_utils import get_last_checkpoint
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]

    class Report(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs and "reward" in logs:
                report(logs, state.global_step)
                advance(1, f"reward {logs['reward']:.2f}")

    backbone = system.policy.backbone
    checkpoint = get_last_checkpoint(str(directory)) if directory.is_dir() else None
    done = 0 if checkpoint is None else int(checkpoint.rpartition("-")[2])
    with progress_bar("GRPO", options.steps, "steps", done=done) as advance, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing")
        arguments = GRPOConfig(
            output_dir=str(directory),
            max_steps=options.steps,
            per_device_train_batch_size=options.n,
            gradient_accumulation_steps=options.tasks_per_step,
            num_generations=options.n,
            max_completion_length=None,
            temperature=system.decoding.sampling.temperature,
            learning_rate=options.learning_rate,
            beta=options.beta,
            reward_weights=[options.passed, options.quality],
            save_steps=options.save_every,
            save_total_limit=1,
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            use_cpu=backbone.device.type == "cpu",
            bf16=False,  # the backbone keeps its own dtype
            gradient_checkpointing=False,
            seed=seed,
        )
        trainer = GRPOTrainer(
            model=lora.peft_model,
            reward_funcs=[passed, quality],  # their names are those of TRL's logs
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": [task.id for task in tasks]}),
            processing_class=backbone.tokenizer,
            rollout_func=Rollouts(system, tasks, judge, seed=seed),
            callbacks=[Report()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=checkpoint)
    lora.eval()
    return [row for row in trainer.state.log_history if "reward" in row]
