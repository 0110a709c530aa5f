"""Speed of the engine against transformers' generate(num_return_sequences=n).

    python benchmarks/decode.py                       # prints a table
    python benchmarks/decode.py --json decode.json    # and writes the same numbers

A random Llama of 134 million parameters in float32 on the CPU (`--device cuda --dtype bfloat16` elsewhere) samples n
programs for each of a few prompts. It ends a program by itself after 20 to 100 tokens: from the 20th on after every token
whose id is a multiple of 40. Both sides sample at temperature 1 from the whole distribution; transformers takes one prompt
at a time, with all n rows, and the engine a token budget in which n programs fit. They take turns, so that both meet the
same load of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cptlab.backbone import Backbone  # noqa: E402
from cptlab.decoding import Sampling, generate  # noqa: E402
from cptlab.records import Prompt  # noqa: E402

EOS = 0
SHORTEST, LONGEST, EVERY = 20, 100, 40


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--length", type=int, default=400, help="tokens of a prompt")
    parser.add_argument("--n", type=int, default=32, help="programs per prompt")
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    options = parser.parse_args(arguments)
    backbone = random_llama(options)
    parameters = sum(p.numel() for p in backbone.model.parameters())
    ends_by_itself(backbone, options.length)
    prompts = random_prompts(backbone, options.prompts, options.length)
    print(
        f"{options.n} programs for each of {options.prompts} prompts of {options.length} tokens, {SHORTEST} to {LONGEST} new "
        f"tokens, {parameters / 1e6:.0f}M parameters, {options.dtype}, {options.device}, {torch.get_num_threads()} threads"
    )

    seconds, lengths = {"generate": 0.0, "engine": 0.0}, {"generate": [], "engine": []}
    half = len(prompts) // 2
    for side, part in (("generate", prompts[:half]), ("engine", prompts), ("generate", prompts[half:])):
        started = time.perf_counter()
        lengths[side] += {"generate": by_transformers, "engine": by_engine}[side](backbone, part, options)
        if options.device != "cpu":
            torch.cuda.synchronize()
        seconds[side] += time.perf_counter() - started

    results: dict[str, Any] = {"parameters": parameters, "prompts": options.prompts, "prompt_tokens": options.length,
                               "n": options.n, "device": options.device, "dtype": options.dtype,
                               "threads": torch.get_num_threads(), "load": os.getloadavg()[0],
                               "versions": {name: version(name) for name in ("torch", "transformers")}}  # fmt: skip
    print(f"{'':12}{'seconds':>10}{'programs/s':>12}{'tokens/s':>10}{'new tokens':>12}")
    for side, taken in seconds.items():
        count, tokens = len(lengths[side]), sum(lengths[side])
        results[side] = {"seconds": taken, "programs_per_second": count / taken, "tokens_per_second": tokens / taken,
                         "mean_new_tokens": tokens / count}  # fmt: skip
        print(f"{side:12}{taken:10.1f}{count / taken:12.2f}{tokens / taken:10.1f}{tokens / count:12.1f}")
    results["ratio"] = results["engine"]["programs_per_second"] / results["generate"]["programs_per_second"]
    print(f"The engine makes {results['ratio']:.2f} times as many programs per second.")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def random_llama(options: argparse.Namespace) -> Backbone:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=options.vocabulary, hidden_size=options.hidden, intermediate_size=8 * options.hidden // 3,
        num_hidden_layers=options.layers, num_attention_heads=options.hidden // 64,
        max_position_embeddings=2048, eos_token_id=EOS, bos_token_id=None, pad_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(options.device, getattr(torch, options.dtype))
    words = {f"w{number}": number for number in range(options.vocabulary)}
    words["<unk>"] = words.pop("w2")
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w0", pad_token="w1", unk_token="<unk>")
    return Backbone(model, fast, "random Llama")


def ends_by_itself(backbone: Backbone, prompt_length: int) -> None:
    """The model says end-of-text exactly where the rule at the top of this file has it, whoever runs it."""

    def end(model, arguments, keywords, output) -> None:
        last, at = keywords["input_ids"][:, -1], keywords["position_ids"][:, -1]
        ends = (at >= prompt_length + SHORTEST - 2) & (last % EVERY == 0)
        output.logits[:, -1, EOS] = torch.where(ends, 1e4, -1e4).to(output.logits.dtype)

    backbone.model.register_forward_hook(end, with_kwargs=True)


def random_prompts(backbone: Backbone, count: int, length: int) -> list[tuple[str, Prompt]]:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(3, backbone.vocab_size, (count, length), generator=generator).tolist()
    return [(str(number), Prompt(" ".join(f"w{token}" for token in row))) for number, row in enumerate(rows)]


def by_transformers(backbone: Backbone, prompts: list[tuple[str, Prompt]], options: argparse.Namespace) -> list[int]:
    """New tokens of every program."""
    lengths = []
    for _, prompt in prompts:
        ids = torch.tensor([backbone.encode_prompt(prompt.text)], device=options.device)
        with torch.inference_mode():
            rows = backbone.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_p=1.0, top_k=0,
                num_return_sequences=options.n, max_new_tokens=LONGEST, pad_token_id=1,
            )  # fmt: skip
        for row in rows[:, ids.shape[1] :].tolist():
            lengths.append(row.index(EOS) + 1 if EOS in row else len(row))
    return lengths


def by_engine(backbone: Backbone, prompts: list[tuple[str, Prompt]], options: argparse.Namespace) -> list[int]:
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=LONGEST)
    budget = options.n * (options.length + LONGEST)
    rows = generate(backbone, prompts, options.n, sampling, token_budget=budget)
    return [completion.tokens for row in rows for completion in row]


if __name__ == "__main__":
    main(sys.argv[1:])
