"""Train an adapter: build the pairs if they are not there yet, run both stages, export it for Hugging Face's tools.

python train.py
python train.py seed=1 ablation=no_rank
python train.py -m seed=1,2 ablation=full,no_rank
"""

from cptlab.commands.cli import run

if __name__ == "__main__":
    run("train")
