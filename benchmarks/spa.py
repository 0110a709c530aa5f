"""Speed of Selective Prompt Anchoring: cptlab's engine and logits processor against the official package, `anchoring`.

    python benchmarks/spa.py                             # Llama of 135M parameters, prompt 150, 100 new tokens
    python benchmarks/spa.py --json spa.json             # the same numbers as JSON
    python benchmarks/spa.py --layers 2 --new 8          # a quick look

speed     greedy tokens per second at one prompt and at eight, the model, the prompts and the masked prompts the same:
          anchoring (the mode of the paper; prompt after prompt, since it cannot batch), cptlab's SPALogitsProcessor in
          `model.generate`, and cptlab's engine; the ratios to anchoring; and how many prompts got the same tokens. A
          random model in float32 has close ties, so a few may differ. Three rows: writing, from the first new token on;
          reading, up to it, in tokens of the prompts; and both together, in new tokens.
overhead  SPA against plain decoding by the engine, per new token: milliseconds of writing and of both, keys and values
          held at the end, and how far the process's resident memory rose meanwhile, reading the prompts included.
kata      the same on kata-lm, sampling 20 programs a task, as an evaluation does.

The sides take turns, round by round, so that all meet the same load of the machine; the time is the median round.
The weights are random: they do not change the speed.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import random
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from anchoring import SPALogitsProcessor as TheirProcessor
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessorList, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cptlab.backbone import Backbone, load_backbone  # noqa: E402
from cptlab.decoding import Guidance, Sampling, generate  # noqa: E402
from cptlab.decoding.logits_processor import SPALogitsProcessor  # noqa: E402
from cptlab.decoding.negatives.masked import Masked, masked_ids  # noqa: E402
from cptlab.records import Prompt, Span  # noqa: E402
from cptlab.tasks.kata import kata  # noqa: E402
from cptlab.tracking.provenance import version_of  # noqa: E402

ANCHORED = (0.1, 0.4)  # where the anchor begins and ends in a prompt, as shares of it: a docstring below a signature


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    parser.add_argument("--part", choices=("speed", "overhead", "kata"), action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="numbers of prompts")
    parser.add_argument("--prompt", type=int, default=150, help="tokens")
    parser.add_argument("--new", type=int, default=100, help="tokens")
    parser.add_argument("--omega", type=float, default=1.28)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--vocabulary", type=int, default=49152)
    options = parser.parse_args(arguments)
    backbone = random_llama(options.layers, options.hidden, options.vocabulary, options.prompt + options.new + 8)
    parameters = sum(parameter.numel() for parameter in backbone.model.parameters())
    results: dict[str, Any] = {
        "parameters": parameters, "prompt": options.prompt, "new": options.new, "omega": options.omega,
        "rounds": options.rounds, "cpus": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in
                     ("cptlab", "anchoring", "torch", "transformers")}},
    }  # fmt: skip
    print(f"Llama of {parameters / 1e6:.0f}M parameters, float32, {results['threads']} threads; "
          f"prompt {options.prompt}, {options.new} new tokens, omega {options.omega}, {options.rounds} rounds")  # fmt: skip
    for name in options.part or ("speed", "overhead", "kata"):
        results[name] = kata_part(options) if name == "kata" else PARTS[name](backbone, options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def random_llama(layers: int, hidden: int, vocabulary: int, context: int) -> Backbone:
    """A Llama of the proportions of SmolLM-135M, and a tokenizer whose tokens are the words w0, w1, …"""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=hidden * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=max(1, hidden // 192), max_position_embeddings=context,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    words = Tokenizer(models.WordLevel({"<unk>": 0} | {f"w{i}": i for i in range(1, vocabulary)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens([AddedToken("<unk>", special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<unk>")
    backbone = Backbone(LlamaForCausalLM(config), tokenizer, "random-llama")
    backbone.model.generation_config.pad_token_id = 0
    return backbone


def prompts_of(options: argparse.Namespace, count: int, seed: int) -> list[tuple[str, Prompt]]:
    chance = random.Random(seed)
    first, last = (int(share * options.prompt) for share in ANCHORED)
    prompts = []
    for number in range(count):
        words = [f"w{chance.randrange(1, options.vocabulary)}" for _ in range(options.prompt)]
        text = " ".join(words)
        start = len(" ".join(words[:first])) + 1
        span = Span("nl", start, start + len(" ".join(words[first:last])))
        prompts.append((f"{seed}/{number}", Prompt(text, spans=(span,))))
    return prompts


# speed --------------------------------------------------------------------------------------------------------------


def speed_part(backbone: Backbone, options: argparse.Namespace) -> dict[str, Any]:
    sampling = Sampling(temperature=0, max_new_tokens=options.new, heal=False)
    guidance = Guidance(Masked(("nl",)), options.omega)

    def both(prompts: list[tuple[str, Prompt]]) -> tuple[torch.Tensor, torch.Tensor]:
        clean = [backbone.encode_prompt(prompt.text) for _, prompt in prompts]
        return torch.tensor(clean), torch.tensor([masked_ids(backbone, prompt, ("nl",)) for _, prompt in prompts])

    def continued(clean: torch.Tensor, processor: Any) -> list[str]:
        output = backbone.model.generate(
            input_ids=clean, attention_mask=torch.ones_like(clean), do_sample=False, max_new_tokens=options.new,
            logits_processor=LogitsProcessorList([processor]),
        )  # fmt: skip
        return [backbone.decode(row) for row in output[:, clean.shape[1] :].tolist()]

    def anchoring(prompts: list[tuple[str, Prompt]]) -> list[str]:
        paper, texts = {"modulated_by_prob": False, "use_attention_mask": False}, []
        for clean, masked in zip(*(ids.split(1) for ids in both(prompts)), strict=True):
            texts += continued(clean, TheirProcessor(backbone.model, masked, "<unk>", options.omega, **paper))
        return texts

    def processor(prompts: list[tuple[str, Prompt]]) -> list[str]:
        clean, masked = both(prompts)
        return continued(clean, SPALogitsProcessor(backbone.model, clean, masked, options.omega))

    def engine(prompts: list[tuple[str, Prompt]]) -> list[str]:
        return [row[0].raw for row in generate(backbone, prompts, 1, sampling, guidance=guidance)]

    print(f"\nSpeed, greedy, tokens per second\n{'prompts':>8}{'':>10}{'anchoring':>12}{'processor':>12}{'engine':>12}"
          f"{'processor/anchoring':>22}{'engine/anchoring':>19}   same tokens")  # fmt: skip
    sides = {"anchoring": anchoring, "processor": processor, "engine": engine}
    clock, results = Clock(backbone.model), {}
    for count in options.batch:
        seconds, texts = in_turn(sides, [prompts_of(options, count, seed) for seed in range(options.rounds)], clock)
        same = {name: sum(map(str.__eq__, texts[name], texts["anchoring"])) for name in ("processor", "engine")}
        found = results[str(count)] = {"prompts": len(texts["anchoring"]), "same_tokens": same, "seconds": seconds}
        work = {"writing": options.new - 1, "reading": options.prompt, "both": options.new}
        for phase, tokens in work.items():
            speed = {name: count * tokens / statistics.median(times[phase]) for name, times in seconds.items()}
            ratios = {name: speed[name] / speed["anchoring"] for name in same}
            found[phase] = {"tokens_per_second": speed, "ratio_to_anchoring": ratios}
            tail = f"   {same['processor']} and {same['engine']} of {found['prompts']}" if phase == "both" else ""
            print(f"{count:8}{phase:>10}{speed['anchoring']:12.1f}{speed['processor']:12.1f}{speed['engine']:12.1f}"
                  f"{ratios['processor']:22.2f}{ratios['engine']:19.2f}{tail}")  # fmt: skip
    return results


class Clock:
    """Seconds since `start` in which the model read prompts, and in which it wrote: forwards of one token a row, and
    whatever follows these."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.phase, self.seconds = "reading", {}
        model.register_forward_pre_hook(self._forward, with_kwargs=True)

    def start(self) -> None:
        self.seconds = {"reading": 0.0, "writing": 0.0}
        self.phase, self.last = "reading", time.perf_counter()

    def stop(self) -> dict[str, float]:
        self._enter(self.phase)
        return self.seconds | {"both": sum(self.seconds.values())}

    def _forward(self, model: torch.nn.Module, arguments: tuple, options: dict[str, Any]) -> None:
        if self.seconds:
            self._enter("writing" if options["input_ids"].shape[1] == 1 else "reading")

    def _enter(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[self.phase] += now - self.last
        self.phase, self.last = phase, now


def in_turn(
    sides: dict[str, Callable[[Any], list[str]]], rounds: list[Any], clock: Clock
) -> tuple[dict[str, dict[str, list[float]]], dict[str, list[str]]]:
    """Seconds of each side by phase in each round, and all that it returned; before that, each has warmed up on one
    prompt."""
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in sides}
    results: dict[str, list[str]] = {name: [] for name in sides}
    for side in sides.values():
        side(rounds[0][:1])
    for work in rounds:
        for name, side in sides.items():
            clock.start()
            results[name] += side(work)
            for phase, spent in clock.stop().items():
                seconds[name].setdefault(phase, []).append(spent)
    return seconds, results


# overhead -----------------------------------------------------------------------------------------------------------


def overhead_part(backbone: Backbone, options: argparse.Namespace) -> dict[str, Any]:
    sampling = Sampling(temperature=0, max_new_tokens=options.new, heal=False)
    caches, clock = CacheSizes(backbone), Clock(backbone.model)

    def side(guidance: Guidance | None) -> Callable[[Any], list[str]]:
        return lambda prompts: [row[0].raw for row in generate(backbone, prompts, 1, sampling, guidance=guidance)]

    print(f"\nOverhead of SPA in the engine, per new token\n{'prompts':>8}{'':>8}{'ms writing':>12}{'ms both':>10}{'KiB of keys and values':>26}"
          f"{'KiB resident':>16}")  # fmt: skip
    sides = {"plain": side(None), "SPA": side(Guidance(Masked(("nl",)), options.omega))}
    results: dict[str, Any] = {}
    for count in options.batch:
        rounds = [prompts_of(options, count, seed) for seed in range(options.rounds)]
        seconds, _ = in_turn(sides, rounds, clock)
        found = results[str(count)] = {}
        for name in sides:
            before, caches.largest = resident_bytes_from_here(), 0
            sides[name](rounds[0])
            tokens = count * options.new
            found[name] = {
                "ms_writing": 1000 * statistics.median(seconds[name]["writing"]) / (tokens - count),
                "ms_both": 1000 * statistics.median(seconds[name]["both"]) / tokens,
                "cache_kib": caches.largest / 1024 / tokens,
                "resident_kib": (peak_bytes() - before) / 1024 / tokens,
            }
        found["ratio"] = {key: value / found["plain"][key] for key, value in found["SPA"].items()}
        for name, one in found.items():
            print(f"{count:8}{name:>8}{one['ms_writing']:12.2f}{one['ms_both']:10.2f}{one['cache_kib']:26.2f}"
                  f"{one['resident_kib']:16.2f}")  # fmt: skip
    return results


def kata_part(options: argparse.Namespace) -> dict[str, Any]:
    """The same on kata-lm: the first test tasks, 20 samples of each as an evaluation makes them."""
    backbone = load_backbone("kata-lm")
    tasks = kata().split("test", 30)
    prompts = [(task.id, task.prompt) for task in tasks]
    print(f"\nOverhead on kata-lm, {len(tasks)} tasks, 20 samples of each, per new token\n{'':>16}{'ms':>12}"
          f"{'KiB of keys and values':>26}{'new tokens':>14}")  # fmt: skip
    caches, results = CacheSizes(backbone), {}
    seconds: dict[str, list[float]] = {"plain": [], "SPA": []}
    guidances = {"plain": None, "SPA": Guidance(Masked(("nl",)), options.omega)}
    for _ in range(options.rounds):
        for name, guidance in guidances.items():
            caches.largest, started = 0, time.perf_counter()
            rows = list(generate(backbone, prompts, 20, Sampling(), guidance=guidance))
            seconds[name].append(time.perf_counter() - started)
            tokens = sum(completion.tokens for row in rows for completion in row)
            results[name] = {"ms": 1000 * statistics.median(seconds[name]) / tokens, "tokens": tokens,
                             "cache_kib": caches.largest / 1024 / tokens}  # fmt: skip
    results["ratio"] = {key: results["SPA"][key] / results["plain"][key] for key in ("ms", "cache_kib")}
    for name, one in results.items():
        print(f"{name:>16}{one['ms']:12.3f}{one['cache_kib']:26.2f}{one.get('tokens', ''):>14}")
    return results


class CacheSizes:
    """The most bytes of keys and values that the engine held after a step since `largest` was set to 0."""

    def __init__(self, backbone: Backbone) -> None:
        self.largest, step = 0, backbone.step

        def watched(tokens: torch.Tensor, state: Any, *rest: Any) -> torch.Tensor:
            logits = step(tokens, state, *rest)
            held = sum(layer.keys.nbytes + layer.values.nbytes for layer in state.cache.layers)
            self.largest = max(self.largest, held)
            return logits

        backbone.step = watched


def resident_bytes_from_here() -> int:
    """Resident memory of this process, after it gave back what is free and forgot its peak (Linux, glibc)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status_bytes("VmRSS")


def peak_bytes() -> int:
    return status_bytes("VmHWM")


def status_bytes(name: str) -> int:
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


PARTS = {"speed": speed_part, "overhead": overhead_part}

if __name__ == "__main__":
    main(sys.argv[1:])
