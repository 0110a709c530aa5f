"""An evaluation of two systems to review, and the server of a review in a process of its own."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import urllib.request

from cptlab.records import Completion, Prompt, Quality, Task, Verdict
from cptlab.storage.atomic import write_json
from cptlab.storage.jsonl import write_jsonl

HARMFUL = (
    "</code></pre><script>document.title='harm'</script><img src=x onerror=\"document.title='harm'\"> \u202e\x00\x1b"
)
STATUSES = ("passed", "failed", "error", "timeout", "not_parsed")


def store_evaluation(directory, tasks=6, samples=4, systems=("base", "tuned"), seed=0):
    """Store made-up programs, each with a number of its own, and verdicts of every kind; the first of a task passes."""
    draw = random.Random(seed)
    found = [
        Task(
            f"toy/{i:03d}",
            "toy",
            "test",
            "interview",
            "call",
            Prompt(f"Add {i}. {HARMFUL}\ndef f(x):", "def f(x):"),
            "f",
        )
        for i in range(tasks)
    ]
    write_jsonl(directory / "tasks.jsonl", found)
    number = 0
    for system in systems:
        rows = []
        for task in found:
            for sample in range(samples):
                number += 1
                text = f"\n    '''{HARMFUL}\n    two lines'''\n    for i in range({number}):  # one\n        x += i\n    return x"
                status = "passed" if sample == 0 else draw.choice(STATUSES)
                completion = Completion(task.id, sample, text, task.prompt.code + text, 9, True)
                rows.append((completion, Quality(draw.random() * 10, 4, False, ()), Verdict(status)))
        for name, records in zip(("completions", "quality", "verdicts"), zip(*rows, strict=True), strict=True):
            write_jsonl(directory / system / f"{name}.jsonl", records)
    (directory / "config.yaml").write_text("n: 4\n")
    write_json(directory / "metrics.json", {"systems": list(systems), "results": {}})
    return directory


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


class Server:
    """`cptlab review` on a port of its own; `kill` ends it without warning, and `start` begins it again."""

    def __init__(self, run, *settings):
        self.port, self.run, self.settings = free_port(), run, settings
        self.address = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        code = "from cptlab.commands.cli import run; run('review')"
        command = [sys.executable, "-c", code, f"run={self.run}", f"port={self.port}", *self.settings]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ.copy()
        )
        self.said = []
        for line in self.process.stdout:
            self.said.append(line)
            if "Ctrl-C" in line:
                break
        else:
            raise AssertionError("".join(self.said))
        with contextlib.suppress(OSError):  # the socket listens already, and an answer comes once the server is up
            urllib.request.urlopen(self.address, timeout=60).read()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def serving(run, *settings):
    server = Server(run, *settings)
    try:
        yield server
    finally:
        server.kill()
