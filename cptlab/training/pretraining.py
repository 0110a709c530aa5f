"""Train an embedded language model from nothing: its tokenizer and its weights.

kata-lm, a Llama of 3.7 million parameters, and kata-starcoder2, a StarCoder2 of 1.8 million that knows both shapes of
kata's prompts, read kata's corpus (cptlab/kata/corpus.py) once. The loss counts the tokens that authors wrote, not the prompts. In one document of ten, <mask> replaces tokens of the instruction, so that the model
knows its mask token (Selective Prompt Anchoring needs that). Progress is saved every SAVE_EVERY steps, and the same
command goes on from there.
"""

from __future__ import annotations

import pickle
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)

from cptlab.errors import UserError
from cptlab.kata.corpus import Document, documents
from cptlab.kata.prompts import SHAPES
from cptlab.progress import progress_bar
from cptlab.storage.atomic import replacing, write_bytes, write_json
from cptlab.storage.damaged import set_aside

MODELS = {"kata-lm": SHAPES[:1], "kata-starcoder2": SHAPES}  # the shapes of prompts that each is trained on
EOS, PAD, MASK = "<eos>", "<pad>", "<mask>"
STATE_FILE, RECORD_FILE = "training_state.pt", "training.json"
VOCABULARY = 1024
CONTEXT = 1024
PEAK_RATE = 2e-3
SAVE_EVERY = 200
WIDTH_STEP = 16  # few distinct shapes: oneDNN keeps memory for each it has met
# a newline takes its indentation with it, so a prompt that ends before a newline ends at a token boundary
SPLIT = r"\n[ ]*| ?[A-Za-z_]+| ?[0-9]| ?[^\sA-Za-z0-9_]+|[ ]+"


def train_tokenizer(seed: int, shapes: Sequence[str], size: int = 6000) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the first `size` documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[EOS, PAD, MASK],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(
        (d.prompt + d.completion for d in islice(documents(seed, shapes=shapes), size)), trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        mask_token=MASK,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: PreTrainedTokenizerFast, document: Document, rng: random.Random) -> tuple[list[int], int]:
    """Return the token ids of a document, with its end token, and the length of its prompt."""
    prompt = tokenizer(document.prompt, return_offsets_mapping=True)
    ids = list(prompt["input_ids"])
    dice = rng.random()
    if dice < 0.1:
        start, end = document.nl
        for position, (left, right) in enumerate(prompt["offset_mapping"]):
            if left >= start and right <= end and (dice < 0.05 or rng.random() < 0.5):
                ids[position] = tokenizer.mask_token_id
    length = len(ids)
    return ids + tokenizer(document.completion)["input_ids"] + [tokenizer.eos_token_id], length


def batches(
    tokenizer: PreTrainedTokenizerFast, seed: int, shapes: Sequence[str], batch: int, skip: int
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield batches (input_ids, labels), both [batch, T], right-padded. Documents of similar length share a batch.

    `skip` is the number of batches that an earlier run has read.
    """
    rng = random.Random(f"mask-{seed}-{skip}")
    pad_id: Any = tokenizer.pad_token_id
    stream = islice(documents(seed, shapes=shapes), 6000 + skip * batch, None)
    pool_size = 8
    while True:
        pool = sorted(
            (encode(tokenizer, document, rng) for document in islice(stream, pool_size * batch)),
            key=lambda item: len(item[0]),
        )
        groups = [pool[i * batch : (i + 1) * batch] for i in range(pool_size)]
        rng.shuffle(groups)
        for group in groups:
            width = -(-max(len(ids) for ids, _ in group) // WIDTH_STEP) * WIDTH_STEP
            inputs = torch.full((batch, width), pad_id)
            labels = torch.full((batch, width), -100)
            for row, (ids, start) in enumerate(group):
                inputs[row, : len(ids)] = torch.tensor(ids)
                labels[row, start : len(ids)] = torch.tensor(ids[start:])
            yield inputs, labels


def rate(step: int, steps: int) -> float:
    """Return the learning rate: 50 steps of warm-up, then constant, then a linear decay over the last 30%."""
    decay = int(steps * 0.7)
    return PEAK_RATE * min(1.0, (step + 1) / 50) * min(1.0, (steps - step) / (steps - decay))


def make_model(name: str, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """Return the untrained model, initialised at random from `seed`."""
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel
        if name == "kata-lm":
            model = LlamaForCausalLM(
                LlamaConfig(
                    hidden_size=256,
                    intermediate_size=768,
                    num_hidden_layers=4,
                    num_attention_heads=4,
                    num_key_value_heads=4,
                    **common,
                )
            )
        else:
            model = Starcoder2ForCausalLM(
                Starcoder2Config(
                    hidden_size=192,
                    intermediate_size=768,
                    num_hidden_layers=4,
                    num_attention_heads=6,
                    num_key_value_heads=2,
                    sliding_window=None,
                    **common,
                )
            )
    model.set_attn_implementation("eager")  # on a CPU its backward pass is the fastest
    return model


def _begun(output: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return the state that a killed training with these settings left; None if there is none."""
    for name in (RECORD_FILE, "config.json"):
        if (output / name).exists():
            raise UserError(f"{output} already holds a model ({name}). Name another directory: output=DIR.")
    state_file = output / STATE_FILE
    if not state_file.exists():
        return None
    try:
        state = torch.load(state_file, weights_only=True)
        earlier = state["settings"]
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError):
        set_aside(state_file, "it is no state of a training")
        return None
    if earlier != settings:
        given = " ".join(f"{name}={value}" for name, value in earlier.items())
        raise UserError(f"{output} holds an unfinished training with {given}. Give these, or another output=DIR.")
    return state


def pretrain(output: Path, steps: int = 1000, batch: int = 32, seed: int = 0, model: str = "kata-lm") -> None:
    """Train one of MODELS for `steps` batches, and write model, tokenizer and training log to `output`.

    Raises UserError, before anything is written, if `output` holds a model, or the state of a training with other settings.
    """
    name, shapes = model, MODELS[model]
    state_file, settings = output / STATE_FILE, {"model": name, "steps": steps, "batch": batch, "seed": seed}
    state = _begun(output, settings)
    output.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(seed, shapes)
    network = make_model(name, tokenizer, seed)
    decayed = [p for p in network.parameters() if p.dim() > 1]
    plain = [p for p in network.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=PEAK_RATE,
        betas=(0.9, 0.98),
    )
    start, seconds, log = 0, 0.0, []
    if state is not None:
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start, seconds, log = state["step"], state["seconds"], state["log"]
        print(f"going on from step {start}", flush=True)
    stream = batches(tokenizer, seed, shapes, batch, start)
    mark, running = time.monotonic(), []
    network.train()
    with progress_bar(f"training {name}", steps, "steps", done=start) as advance:
        for step in range(start, steps):
            inputs, labels = next(stream)
            for group in optimizer.param_groups:
                group["lr"] = rate(step, steps)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = network(input_ids=inputs, labels=labels).loss  # padding is on the right, where no token looks
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            running.append(loss.item())
            done = step + 1
            advance(1, f"loss {running[-1]:.4f}")
            if done % 50 == 0 or done == steps:
                elapsed = seconds + time.monotonic() - mark
                log.append({"step": done, "loss": sum(running) / len(running), "seconds": round(elapsed, 1)})
                running = []
            if done % SAVE_EVERY == 0 and done < steps:
                with replacing(state_file) as file:
                    torch.save(
                        {
                            "settings": settings,
                            "model": network.state_dict(),
                            "optimizer": optimizer.state_dict(),
                            "step": done,
                            "seconds": seconds + time.monotonic() - mark,
                            "log": log,
                        },
                        file,
                    )
    record = {
        **settings,
        "parameters": network.num_parameters(),
        "seconds": round(seconds + time.monotonic() - mark),
        "threads": torch.get_num_threads(),
        "log": log,
    }
    with tempfile.TemporaryDirectory(dir=output) as fresh:  # a model in use is mapped into memory: replace, not rewrite
        network.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        for file in Path(fresh).iterdir():
            write_bytes(output / file.name, file.read_bytes())
    write_json(output / RECORD_FILE, record)
    state_file.unlink(missing_ok=True)
