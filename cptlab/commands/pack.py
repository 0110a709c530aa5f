"""Pack a run: keep what its tables, figures and report are made from, compressed and without this machine's paths.

    cptlab pack RUN TARGET        then, without a model: cptlab report TARGET

RUN is the directory of a finished run, of a sweep, or of a record (its tables are kept, its runs are not); TARGET is a
new directory.
"""

from __future__ import annotations

import argparse

from cptlab.process.ends import command, exit_with
from cptlab.reporting.packing import pack_run


@command()
def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 with one sentence on standard error where the run cannot be packed."""
    parser = argparse.ArgumentParser(
        prog="cptlab pack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="directory of a finished run, of a sweep, or of a record")
    parser.add_argument("target", metavar="TARGET", help="a new directory")
    given = parser.parse_args(arguments)
    files = [path for path in pack_run(given.run, given.target).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"Packed: {given.target} ({len(files)} files, {size / 1e6:.2f} MB)")
    return 0


if __name__ == "__main__":
    exit_with(main())
