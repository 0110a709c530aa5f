"""The offline file of a W&B run, decoded: W&B's protobuf messages in the log format of LevelDB."""

import json
import struct
from pathlib import Path
from types import SimpleNamespace

BLOCK, HEADER, START = 32768, 7, 7  # bytes: of a block, of the head of a chunk, of the head of the file
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def chunks(data: bytes):
    """Every record's bytes. A file that a kill cut off ends with the last whole record."""
    place, record = START, b""
    assert data[:4] == b":W&B"
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:  # the rest of a block is empty
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        record += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (FULL, LAST):
            yield record
            record = b""


def read_offline_run(directory: Path) -> SimpleNamespace:
    """What all offline parts of the run in a run directory hold, as `wandb sync` would send it.

    `history`: its rows. `summary`, `config`: the last values. `metrics`: what define_metric said, by name or glob.
    `made` and `used`: artifacts, with their manifests. `exit_codes`: one of each part.
    """
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # in this process, W&B's own may still be writing
    found = SimpleNamespace(
        runs=[], history=[], summary={}, config={}, metrics={}, made={}, used={}, exit_codes=[], files=[]
    )
    for file in sorted(directory.glob("wandb/offline-run-*/run-*.wandb")):
        for data in chunks(file.read_bytes()):
            record = Record.FromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                found.runs.append(record.run)
                found.config |= _items(record.run.config.update)
            elif kind == "config":
                found.config |= _items(record.config.update)
            elif kind == "history":
                found.history.append(_items(record.history.item))
            elif kind == "summary":
                found.summary |= _items(record.summary.update)
            elif kind == "metric":
                found.metrics[record.metric.name or record.metric.glob_name] = record.metric
            elif kind == "artifact":
                role = found.used if record.artifact.use_after_commit else found.made
                role[record.artifact.name] = record.artifact
            elif kind == "exit":
                found.exit_codes.append(record.exit.exit_code)
        found.files += [path for path in (file.parent / "files").rglob("*") if path.is_file()]
    return found


def _items(items) -> dict:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
