"""Evaluate systems on held-out tasks: by default the base model and the tuned one. Or programs from elsewhere.

python evaluate.py                                  (the latest training run)
python evaluate.py run=logs/train/runs/<time> system=[base,tuned,best_of_n,ruff_fix]
python evaluate.py -m decoding=paper,spa
python evaluate.py completions=programs.jsonl benchmark=humaneval    (rows with task_id and completion or solution)
python evaluate.py completions=new.jsonl against=old.jsonl benchmark=mbpp
"""

from cptlab.commands.cli import run

if __name__ == "__main__":
    run("evaluate")
