"""benchmarks/decode.py with vLLM as a side. `make test-serving` runs this."""

import json
import subprocess
import sys
from pathlib import Path

from vllm_models import NEEDS_VLLM

pytestmark = NEEDS_VLLM
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "decode.py"
TINY = (
    "--prompts 4 --n 4 --rows 8 --longest 40 --length 30 --hidden 128 --layers 1 --vocabulary 400 --kv-heads 1".split()
)


def test_all_sides_make_the_same_number_of_programs_of_like_length(tmp_path):
    found = tmp_path / "decode.json"
    subprocess.run([sys.executable, SCRIPT, *TINY, "--one", "4", "--json", found], check=True, timeout=300)
    results = json.loads(found.read_text())
    sides = {name: side for name, side in results["sides"].items() if side["programs"]}
    assert set(sides) == {"one prompt", "padded batch", "vllm", "engine", "slots"}
    assert {side["programs"] for side in sides.values()} == {16}
    # one token in forty ends a program from the 20th on: few come to 40, and none ends before
    assert all(20 * 16 <= side["tokens"] < 40 * 16 for side in sides.values())
    assert results["versions"]["vllm"]
    assert results["ratios of engine to vllm"][0] > 0
