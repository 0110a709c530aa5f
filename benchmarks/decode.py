"""Speed of the engine against transformers' generate, prompt by prompt and in padded batches.

    python benchmarks/decode.py                       # prints a table
    python benchmarks/decode.py --json decode.json    # and writes the same numbers
    python benchmarks/decode.py --model DIR           # a real model instead of a random one

n programs are sampled for each prompt, by sides that take turns, so that all meet the same load of the machine:

    one prompt       generate(num_return_sequences=n) for one prompt after the other
    padded batch     generate for `--rows` rows at a time, prompts padded on the left, until the last row has ended
    generate_batch   transformers' continuous batching with a paged cache; on a GPU only, as it takes all free memory
    vllm             vLLM where it is installed (decode_vllm.py), `--rows` rows at a time; not with --without-vllm
    engine           cptlab.decoding.generate, plain, with a token budget in which `--rows` rows fit
    slots            the same in slots of fixed size; on a GPU each step is one CUDA graph

The random model is a Llama of 123 million parameters with four query heads to a key head, in float32 on the CPU (`--device
cuda --dtype bfloat16` elsewhere). It ends a program by itself after 20 to `--longest` tokens: from the 20th on after every
token whose id is a multiple of 40. A real model (a directory, or a hub id) gets programming tasks, in its own chat template
with an opened fence if it has one. Its programs end at the model's own end, at the token of the closing fence, or at
`--longest`, the same for all sides. Sampling is the same as well, and glibc gives no memory back to the system, so that no side pays for
page faults again and again. Tokens per CPU second hardly depend on what else the machine does, if OMP_WAIT_POLICY=passive
is set, so that threads that wait take no time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import decode_vllm  # noqa: E402

from cptlab.backbone import Backbone, load_backbone  # noqa: E402
from cptlab.decoding import Sampling, generate  # noqa: E402
from cptlab.decoding.slots.batch import whole_widths  # noqa: E402
from cptlab.decoding.streams import left_padded  # noqa: E402
from cptlab.records import Prompt  # noqa: E402
from cptlab.serving.installed import vllm_version  # noqa: E402

EOS = 0
SHORTEST, EVERY = 20, 40
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 26)}
SIDES = ("one prompt", "padded batch", "generate_batch", "vllm", "engine", "slots")
COUNTED = ("programs", "tokens", "seconds", "cpu_seconds", "page_faults")
TASKS = (
    "find the shared elements of two lists", "check whether a number is a perfect square",
    "count the vowels in a text", "merge two sorted lists into one sorted list",
    "compute the n-th Fibonacci number", "remove duplicates from a list but keep its order",
    "check whether a text is a palindrome, ignoring case and spaces", "find the longest word in a sentence",
    "rotate a list to the right by k places", "compute the greatest common divisor of two numbers",
    "group words that are anagrams of each other", "find all prime numbers below n",
    "flatten a list of nested lists", "transpose a matrix given as a list of rows",
    "convert a Roman numeral to an integer", "find the second largest number in a list",
    "check whether the brackets of a text are balanced", "sum the digits of a number",
    "find the first character of a text that does not repeat", "split a list into chunks of a given size",
    "compute the edit distance between two words", "find the majority element of a list",
    "sort a dictionary by its values in falling order", "search a sorted list by bisection",
    "convert a decimal number to binary without bin()", "find the longest common prefix of a list of words",
    "count how often each word occurs in a text", "check whether a year is a leap year",
    "compute all permutations of a text", "find the largest sum of a contiguous part of a list",
)  # fmt: skip


def main(arguments: list[str]) -> None:
    options = parsed(arguments)
    if any(os.environ.get(name) != value for name, value in KEEP_MEMORY.items()):  # read when a process starts
        os.execve(sys.executable, [sys.executable, __file__, *arguments], {**os.environ, **KEEP_MEMORY})
    backbone = (
        load_backbone(options.model, dtype=options.dtype, device=options.device)
        if options.model
        else random_llama(options)
    )
    if options.model:
        prompts = task_prompts(backbone, options.prompts)
        backbone.eos_ids |= set(fences(backbone))
    else:
        prompts = random_prompts(backbone, options.prompts, options.length)
        ends_by_itself(backbone, options.length)
    tokens = [len(backbone.encode_prompt(prompt.text)) for _, prompt in prompts]
    parameters = sum(p.numel() for p in backbone.model.parameters())
    print(
        f"{backbone.name}, {parameters / 1e6:.0f}M parameters, {options.dtype}, {options.device}, {torch.get_num_threads()} "
        f"threads. {len(prompts)} prompts of {min(tokens)} to {max(tokens)} tokens, {options.n} programs each, at most "
        f"{options.longest} new tokens, temperature {options.temperature}, top-p {options.top_p}; {options.rows} rows at a time.\n"
        f"For all sides: {' '.join(f'{name}={value}' for name, value in KEEP_MEMORY.items())}",
        flush=True,
    )

    measured: dict[str, dict[str, float]] = {side: {name: 0.0 for name in COUNTED} for side in SIDES}
    single, batched, size = prompts[: options.one], prompts[: options.padded], options.rows // options.n
    half = -(-len(batched) // (2 * size)) * size  # whole batches
    paged = [] if options.device == "cpu" else prompts  # there its cache takes all memory that is free
    turns = [("one prompt", single[::2]), ("padded batch", batched[:half]), ("slots", prompts), ("engine", prompts),
             ("generate_batch", paged), ("padded batch", batched[half:]), ("one prompt", single[1::2]),
             ("vllm", prompts if options.vllm else [])]  # fmt: skip
    for side, part in turns:
        if part:
            run = started_vllm(backbone, options, max(tokens)) if side == "vllm" else SIDE[side]
            measure(measured[side], run, backbone, part, options)
            print(
                f"  {side}: {measured[side]['programs']:.0f} programs so far, {measured[side]['seconds']:.0f} s",
                flush=True,
            )

    versions = {name: version(name) for name in ("torch", "transformers")}
    versions |= {"vllm": vllm_version()} if options.vllm else {}
    results: dict[str, Any] = {
        "model": backbone.name, "parameters": parameters, "prompt_tokens": [min(tokens), max(tokens)], "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0], "versions": versions,
        "environment": {name: value for name, value in os.environ.items() if name.startswith(("OMP_", "MALLOC_"))},
        **{name: value for name, value in vars(options).items() if name != "json"}, "sides": measured,
    }  # fmt: skip
    report(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="DIR", help="a real model: a directory or a hub id")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--n", type=int, default=10, help="programs per prompt")
    parser.add_argument("--rows", type=int, default=80, help="programs at a time, in padded batches and in the engine")
    parser.add_argument("--longest", type=int, default=100, help="new tokens of a program at most")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--one", type=int, default=2, help="prompts that are measured one by one")
    parser.add_argument("--padded", type=int, help="prompts that are measured in padded batches (default: all)")
    parser.add_argument("--length", type=int, default=400, help="tokens of a prompt of the random model")
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument(
        "--kv-heads", type=int, help="key heads of the random model (default: a quarter of the query heads)"
    )
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--without-vllm", dest="vllm", action="store_false", help="leave vLLM out, which starts slowly")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    options = parser.parse_args(arguments)
    options.vllm = options.vllm and decode_vllm.installed()
    options.padded = options.prompts if options.padded is None else options.padded
    if options.rows % options.n:
        parser.error(f"--rows must be a multiple of --n, got {options.rows} and {options.n}")
    return options


def measure(total: dict[str, float], side: Callable, backbone: Backbone, prompts, options: argparse.Namespace) -> None:
    """Add what `side` takes for these prompts to `total`."""
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    lengths = side(backbone, prompts, options)
    if options.device != "cpu":
        torch.cuda.synchronize()
    taken, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    for name, value in zip(
        COUNTED, (len(lengths), sum(lengths), taken, cpu, after.ru_minflt - before.ru_minflt), strict=True
    ):
        total[name] += value


def report(results: dict[str, Any]) -> None:
    """Print the table, and add rates and ratios to the results."""
    print(f"{'':14}{'programs':>9}{'tokens':>8}{'seconds':>9}{'tokens/s':>10}{'tokens/CPU s':>14}{'faults/token':>14}")
    for side, one in results["sides"].items():
        if one["programs"]:
            one["tokens_per_second"], one["tokens_per_cpu_second"] = (
                one["tokens"] / one[what] for what in ("seconds", "cpu_seconds")
            )
            print(
                f"{side:14}{one['programs']:9.0f}{one['tokens']:8.0f}{one['seconds']:9.1f}{one['tokens_per_second']:10.1f}"
                f"{one['tokens_per_cpu_second']:14.1f}{one['page_faults'] / one['tokens']:14.1f}"
            )
    for ours, side in product(SIDES[-2:], SIDES):
        engine, one = results["sides"][ours], results["sides"][side]
        if one["programs"] and ours != side:
            ratios = [engine[rate] / one[rate] for rate in ("tokens_per_second", "tokens_per_cpu_second")]
            results[f"ratios of {ours} to {side}"] = ratios
            print(
                f"{ours}: {ratios[0]:.2f} times the tokens per second of {side} ({ratios[1]:.2f} times per CPU second)."
            )


def random_llama(options: argparse.Namespace) -> Backbone:
    torch.manual_seed(0)
    heads = options.hidden // 64
    config = LlamaConfig(
        vocab_size=options.vocabulary, hidden_size=options.hidden, intermediate_size=8 * options.hidden // 3,
        num_hidden_layers=options.layers, num_attention_heads=heads, num_key_value_heads=options.kv_heads or max(1, heads // 4),
        max_position_embeddings=2048, eos_token_id=EOS, bos_token_id=None, pad_token_id=1,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    words = {f"w{number}": number for number in range(options.vocabulary)}
    names = {"eos_token": "<end>", "pad_token": "<pad>", "unk_token": "<unk>"}
    for number, name in enumerate(names.values()):  # names that do not begin another word
        words[name] = words.pop(f"w{number}")
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    return Backbone(model.to(options.device, getattr(torch, options.dtype)), fast, "random Llama")


def ends_by_itself(backbone: Backbone, prompt_length: int) -> None:
    """The model says end-of-text exactly where the rule at the top of this file has it, whoever runs it."""

    def end(model, arguments, keywords, output) -> None:
        kept = output.logits.shape[1]  # packed rows keep the logits of all places, others those of the last
        last, at = keywords["input_ids"][:, -kept:], keywords["position_ids"][:, -kept:]
        ends = (at >= prompt_length + SHORTEST - 2) & (last % EVERY == 0)
        output.logits[:, :, EOS] = torch.where(ends, 1e4, -1e4).to(output.logits.dtype)

    backbone.model.register_forward_hook(end, with_kwargs=True)


def random_prompts(backbone: Backbone, count: int, length: int) -> list[tuple[str, Prompt]]:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(3, backbone.vocab_size, (count, length), generator=generator).tolist()
    return [(str(number), Prompt(" ".join(f"w{token}" for token in row))) for number, row in enumerate(rows)]


def task_prompts(backbone: Backbone, count: int) -> list[tuple[str, Prompt]]:
    """Return prompts for the tasks of this file, which are asked again if there are fewer than `count`."""
    tokenizer, prompts = backbone.tokenizer, []
    for number in range(count):
        task = TASKS[number % len(TASKS)]
        text = f"# A function to {task}.\n\ndef "
        if tokenizer.chat_template:
            turn = {"role": "user", "content": f"Write a Python function to {task}. Give only the code."}
            text = (
                str(tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)) + "```python\n"
            )
        prompts.append((str(number), Prompt(text)))
    return prompts


def fences(backbone: Backbone) -> list[int]:
    """Return the token that closes a fenced block, if one token does."""
    ids = backbone.tokenizer.encode("```", add_special_tokens=False)
    return ids if len(ids) == 1 else []


def one_prompt(backbone: Backbone, prompts: list[tuple[str, Prompt]], options: argparse.Namespace) -> list[int]:
    return [length for prompt in prompts for length in by_transformers(backbone, [prompt], options)]


def padded_batch(backbone: Backbone, prompts: list[tuple[str, Prompt]], options: argparse.Namespace) -> list[int]:
    size = options.rows // options.n
    parts = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    return [length for part in parts for length in by_transformers(backbone, part, options)]


def by_transformers(backbone: Backbone, prompts: list[tuple[str, Prompt]], options: argparse.Namespace) -> list[int]:
    """Return the number of new tokens of every program."""
    ids, real = left_padded([backbone.encode_prompt(prompt.text) for _, prompt in prompts], backbone.pad_id)
    with torch.inference_mode():
        rows: Any = backbone.model.generate(  # pyright: ignore[reportCallIssue]
            input_ids=ids.to(options.device), attention_mask=real.to(options.device), do_sample=True,
            temperature=options.temperature, top_p=options.top_p, top_k=0, repetition_penalty=1.0,
            num_return_sequences=options.n, max_new_tokens=options.longest, pad_token_id=backbone.pad_id,
            eos_token_id=sorted(backbone.eos_ids),
        )  # fmt: skip
    new = [row[ids.shape[1] :] for row in rows.tolist()]
    ends = [next((place for place, token in enumerate(row) if token in backbone.eos_ids), None) for row in new]
    return [len(row) if end is None else end + 1 for row, end in zip(new, ends, strict=True)]


def by_continuous_batching(
    backbone: Backbone, prompts: list[tuple[str, Prompt]], options: argparse.Namespace
) -> list[int]:
    """Transformers' own continuous batching, with a paged cache that all samples of a prompt share."""
    how = GenerationConfig(
        do_sample=True, temperature=options.temperature, top_p=options.top_p, top_k=0, max_new_tokens=options.longest,
        num_return_sequences=options.n, pad_token_id=backbone.pad_id, eos_token_id=sorted(backbone.eos_ids),
    )  # fmt: skip
    ids = [backbone.encode_prompt(prompt.text) for _, prompt in prompts]
    found: Any = backbone.model.generate_batch(inputs=ids, generation_config=how)  # pyright: ignore[reportCallIssue]
    return [len(one.generated_tokens) for one in found.values()]


def by_engine(
    backbone: Backbone, prompts: list[tuple[str, Prompt]], options: argparse.Namespace, slots: bool = False
) -> list[int]:
    sampling = Sampling(
        options.temperature, options.top_p, max_new_tokens=options.longest, function_end=False, heal=False
    )
    longest = max(len(backbone.encode_prompt(prompt.text)) for _, prompt in prompts)
    tokens = longest + options.longest
    budget = options.rows * (whole_widths(tokens) if slots else tokens)
    rows = generate(backbone, prompts, options.n, sampling, token_budget=budget, slots=slots)
    return [completion.tokens for row in rows for completion in row]


def by_slots(backbone: Backbone, prompts: list[tuple[str, Prompt]], options: argparse.Namespace) -> list[int]:
    return by_engine(backbone, prompts, options, slots=True)


def started_vllm(backbone: Backbone, options: argparse.Namespace, prompt_tokens: int) -> Callable:
    """Start vLLM; programs end there as at the top of this file."""
    if options.model:
        return decode_vllm.started(backbone, options, prompt_tokens, backbone.eos_ids, 0)
    return decode_vllm.started(backbone, options, prompt_tokens, range(0, options.vocabulary, EVERY), SHORTEST)


SIDE: dict[str, Callable] = {
    "one prompt": one_prompt, "padded batch": padded_batch, "generate_batch": by_continuous_batching,
    "engine": by_engine, "slots": by_slots,
}  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
