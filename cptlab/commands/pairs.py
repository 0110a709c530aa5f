"""Build the pairs alone, as `train` would.

cptlab pairs
cptlab pairs pairs=paper backbone=code_llama_7b
cptlab pairs -m shards=8 'shard=range(8)' hydra/launcher=submitit_slurm      # its programs, in jobs of a cluster
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from cptlab.commands.shared.build_pairs import build_pairs, make_part_of_programs
from cptlab.commands.shared.common import PAIRS_FILE
from cptlab.commands.shared.many_machines import makes_a_part
from cptlab.process.ends import exit_with
from cptlab.settings.entry import hydra_command
from cptlab.storage.run_directory import discard


def pairs(config: DictConfig, fresh: Path) -> None:
    """Print the path of the file of pairs. With `shard` or `estimate`, programs are made and no pairs."""
    discard(fresh)
    if makes_a_part(config):
        make_part_of_programs(config)
        return
    print(build_pairs(config) / PAIRS_FILE)


main = hydra_command("pairs", pairs)

if __name__ == "__main__":
    exit_with(main())
