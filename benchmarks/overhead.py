"""What a decoding step costs beside the model: operator calls, and the processor's time, for a tiny model on the CPU.

    python benchmarks/overhead.py                         # prints a table
    python benchmarks/overhead.py --json overhead.json    # and writes the same numbers

On a GPU each operator call is a launch, and while Python works the card may wait. Both can be counted without one. The model
is a Llama of `--layers` layers, so narrow that its products take little time.

    bare      the model alone, one more token per row, with transformers' own cache
    plain     the plain loop: the model behind masks, the choice of tokens, and what is kept of every row
    slots     the same in slots of fixed size, as a GPU records it as one graph and replays it: tokens are chosen without a look
    guided    with a second stream for every row, as Selective Prompt Anchoring has it; bare: twice as many rows

Everything is divided by steps: what a run of 40 new tokens takes more than one of 24, over 16. So reading the prompts does not
count, and the looks at what has been written do. `operators` are calls that reach torch's dispatcher, `calls` those of Python
functions, `ms` is processor time (one thread, median of `--rounds`), and `to bare` are the ratios to the bare model with as many
rows. From 33 rows on: with fewer, a CPU gets small products written in another way, which takes calls that no GPU makes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cptlab.backbone import Backbone  # noqa: E402
from cptlab.decoding import Guidance, Masked, Sampling, engine, generate  # noqa: E402
from cptlab.decoding.sampling import choose_without_looking  # noqa: E402
from cptlab.decoding.slots.decode import decode_in_slots  # noqa: E402
from cptlab.records import Prompt, Span  # noqa: E402

WORDS, PROMPT = 300, 16
SHORT, LONG = 24, 40  # new tokens
SIDES = ("bare", "plain", "slots")


class OperatorCalls(TorchDispatchMode):
    """Within it, `calls` counts the operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        self.calls[func.__name__.partition(".")[0]] += 1
        return func(*args, **(kwargs or {}))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--rows", type=int, nargs="+", default=[40, 160], help="programs at a time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    backbone = tiny_llama(options.layers)
    table = [
        measured(backbone, side, rows, guided, options.rounds)
        for guided in (False, True)
        for rows in options.rows
        for side in SIDES
    ]
    print(f"{'':16}{'rows':>6}{'operators':>11}{'to bare':>9}{'calls':>9}{'to bare':>9}{'ms':>9}{'to bare':>9}")
    for row in table:
        name = f"{row['side']}{', guided' if row['guided'] else ''}"
        bare = next(
            one
            for one in table
            if one["side"] == "bare" and one["rows"] == row["rows"] and one["guided"] == row["guided"]
        )
        row["operators_to_bare"], row["calls_to_bare"], row["ms_to_bare"] = (
            row[what] / bare[what] for what in ("operators", "calls", "ms")
        )
        print(
            f"{name:16}{row['rows']:6}{row['operators']:11.1f}{row['operators_to_bare']:9.2f}{row['calls']:9.1f}{row['calls_to_bare']:9.2f}{row['ms']:9.2f}{row['ms_to_bare']:9.2f}"
        )
    if options.json:
        versions = {name: version(name) for name in ("torch", "transformers")}
        options.json.write_text(
            json.dumps({"layers": options.layers, "versions": versions, "steps": table}, indent=2) + "\n"
        )


def measured(backbone: Backbone, side: str, rows: int, guided: bool, rounds: int) -> dict[str, Any]:
    """Return operator calls and milliseconds of one step of `rows` programs."""
    run: Callable[[int], None] = (
        bare_run(backbone, rows * (1 + guided)) if side == "bare" else our_run(backbone, rows, guided, side == "slots")
    )
    operators, calls = ([count(run, tokens) for tokens in (SHORT, LONG)] for count in (operators_of, calls_of))
    times = [[timed(run, tokens) for tokens in (SHORT, LONG)] for _ in range(rounds)]
    steps = LONG - SHORT
    return {
        "side": side, "rows": rows, "guided": guided, "operators": (operators[1] - operators[0]) / steps, "calls": (calls[1] - calls[0]) / steps,
        "ms": 1000 * statistics.median(long - short for short, long in times) / steps,
    }  # fmt: skip


def operators_of(run: Callable[[int], None], tokens: int) -> int:
    with OperatorCalls() as operators:
        run(tokens)
    return operators.calls.total()


def calls_of(run: Callable[[int], None], tokens: int) -> int:
    """Count the calls of Python functions."""
    count = 0

    def see(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(see)
    try:
        run(tokens)
    finally:
        sys.setprofile(None)
    return count


def timed(run: Callable[[int], None], tokens: int) -> float:
    start = time.process_time()
    run(tokens)
    return time.process_time() - start


def bare_run(backbone: Backbone, rows: int) -> Callable[[int], None]:
    ids = torch.randint(3, WORDS, (rows, PROMPT), generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def run(tokens: int) -> None:
        cache = DynamicCache()
        backbone.model(input_ids=ids, past_key_values=cache, use_cache=True)
        for _ in range(tokens - 1):
            backbone.model(input_ids=ids[:, :1], past_key_values=cache, use_cache=True)

    return run


def our_run(backbone: Backbone, rows: int, guided: bool, slots: bool) -> Callable[[int], None]:
    text = " ".join(f"w{3 + number}" for number in range(PROMPT))
    prompt = Prompt(text, spans=(Span("nl", 0, len(text) // 2),))
    guidance = Guidance(Masked(("nl",)), 1.5) if guided else None

    as_on_a_gpu = partial(decode_in_slots, choose=choose_without_looking, ahead=True, likeliest=WORDS)

    def run(tokens: int) -> None:
        sampling = Sampling(0.8, 0.95, max_new_tokens=tokens, function_end=False, heal=False)
        with mock.patch.object(engine, "decode_in_slots", as_on_a_gpu):
            for _ in generate(backbone, [("task", prompt)], rows, sampling, guidance=guidance, slots=slots):
                pass

    return run


def tiny_llama(layers: int) -> Backbone:
    """A random Llama that never ends a text."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=None, bos_token_id=None, pad_token_id=1,
    )  # fmt: skip
    words = {f"w{number}": number for number in range(3, WORDS)} | {"<mask>": 0, "<pad>": 1, "<unk>": 2}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", mask_token="<mask>"
    )
    return Backbone(LlamaForCausalLM(config), fast, "tiny Llama")


if __name__ == "__main__":
    main(sys.argv[1:])
