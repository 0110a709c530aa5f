"""DPO, SimPO and ORPO against TRL's own code: its log-probabilities and losses, from logits, with gradients."""

import os
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from fake_outputs import fake_outputs

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
from trl import DPOTrainer  # noqa: E402
from trl.experimental.cpo import CPOTrainer  # noqa: E402
from trl.experimental.orpo import ORPOTrainer  # noqa: E402
from trl.trainer.utils import selective_log_softmax  # noqa: E402

from cptlab.training.objectives import DPO, DPOP, ORPO, SimPO  # noqa: E402

ALONE = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
PAIRS = 3


def shifted(outputs, where):
    """TRL's inputs: a prompt of one token, then the code tokens; labels are -100 where nothing is asked."""
    prompt = torch.zeros(len(outputs.tokens), 1, dtype=torch.long)
    labels = torch.cat([prompt - 100, outputs.tokens.masked_fill(~where, -100)], 1)
    return torch.cat([prompt, outputs.tokens], 1), labels


def padded(logits, code):
    """Logits [R, C + 1, V] as TRL has them: the last place predicts nothing, padding holds numbers."""
    filled = logits.masked_fill(~code[..., None], 0.0)
    return torch.cat([filled, torch.zeros_like(filled[:, :1])], 1)


def sequence_log_probs(outputs, logits, where, average=False):
    labels = shifted(outputs, where)[1]
    return CPOTrainer.get_batch_logps(padded(logits, outputs.code), labels, average_log_prob=average)


def trl_dpo(outputs, objective):
    """`DPOTrainer._compute_loss` for each pair by itself, for it returns a mean. [B]"""
    where = outputs.code if objective.over == "code" else outputs.mask
    input_ids, labels = shifted(outputs, where)
    asked = labels[:, 1:] != -100
    token_scores = selective_log_softmax(padded(outputs.policies[0], outputs.code)[:, :-1], labels[:, 1:].clamp(min=0))
    token_scores = torch.where(asked, token_scores, 0.0)  # as the fused head returns them
    before = sequence_log_probs(outputs, outputs.backbone, where)
    found = []
    for pair in range(PAIRS):
        rows = [pair, pair + PAIRS]
        nothing = torch.zeros_like(token_scores[rows])
        outputs = SimpleNamespace(
            log_probs=token_scores[rows], entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
        )

        def model(outputs=outputs, **_):
            return outputs

        model.training = True
        trainer = SimpleNamespace(
            model=model,
            accelerator=ALONE,
            aux_loss_enabled=False,
            ld_alpha=None,
            precompute_ref_logps=True,
            f_divergence_type="reverse_kl",
            loss_types=["sigmoid"],
            loss_weights=[1.0],
            beta=objective.beta,
            use_weighting=False,
            _metrics=defaultdict(lambda: defaultdict(list)),
            _total_train_tokens=0,
            _tp_size=1,
        )
        inputs = {
            "input_ids": input_ids[rows],
            "attention_mask": torch.ones_like(input_ids[rows]),
            "completion_mask": (labels[rows] != -100).long(),
            "ref_chosen_logps": before[rows[:1]],
            "ref_rejected_logps": before[rows[1:]],
        }
        found.append(DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False))
    return torch.stack(found)


def trl_simpo(outputs, objective):
    trainer = SimpleNamespace(
        accelerator=ALONE,
        alpha=0.0,
        loss_type="simpo",
        simpo_gamma=objective.gamma,
        beta=objective.beta,
        label_smoothing=0.0,
    )
    means = sequence_log_probs(outputs, outputs.policies[0], outputs.code, average=True)
    return CPOTrainer.cpo_loss(trainer, *means.chunk(2))[0]


def trl_orpo(outputs, objective):
    """NLL over the response (the paper's; TRL itself adds the prompt) minus TRL's weighted log-sigmoid."""
    means = sequence_log_probs(outputs, outputs.policies[0], outputs.code, average=True)
    better, worse = means.chunk(2)
    odds = ORPOTrainer.odds_ratio_loss(SimpleNamespace(accelerator=ALONE, beta=objective.w_odds), better, worse)[0]
    return -better - odds


@pytest.mark.parametrize("empty_rows", [(), (0,), (3,), (0, 3)], ids=str)
@pytest.mark.parametrize(
    "objective, theirs, tolerance",
    [
        (DPO(), trl_dpo, 1e-12),
        (DPO(beta=0.7), trl_dpo, 1e-12),
        (DPO(over="differences"), trl_dpo, 1e-12),
        (DPOP(beta=0.2, penalty=0.0), trl_dpo, 1e-12),
        (SimPO(), trl_simpo, 1e-12),
        (SimPO(beta=10.0, gamma=1.6), trl_simpo, 1e-12),
        (ORPO(), trl_orpo, 1e-6),  # TRL goes down to float32 here
        (ORPO(w_odds=2.0), trl_orpo, 1e-6),
    ],
    ids=lambda value: None if callable(value) else str(value),
)
def test_the_losses_are_those_of_trl(objective, theirs, tolerance, empty_rows):
    outputs = fake_outputs(pairs=PAIRS, policies=1, empty_rows=empty_rows)
    mine, expected = sum(objective.weighted(objective.terms(outputs)).values()), theirs(outputs, objective)
    torch.testing.assert_close(mine, expected, rtol=tolerance, atol=tolerance, check_dtype=False)
    policy = outputs.policies[0]
    gradients = [torch.autograd.grad(loss.sum(), policy)[0][outputs.code] for loss in (mine, expected)]
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=100 * tolerance, atol=tolerance)
