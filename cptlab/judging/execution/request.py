"""What the sandbox is asked to execute, and what it says: requests and results."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExecutionRequest:
    """A program and what it is run on.

    `entry_point` and `inputs`: a function and the JSON texts of its argument lists, or None and the stdin texts of a
    script. `prelude` is the text that the benchmark puts before the program. `cpu_seconds` and `memory_mb` raise the usual
    limits.

    With `tests`, the compiled Python of a 'check' task (verdicts/task_requests.py), there are no inputs. Then `test_count`
    is the number of tests, `names` are the names that they use of the program, `imports` the modules that they import
    and that take time, `own_examiner` asks for an examiner that no other program shares, and `mock_patches` for
    patches of the tests to act in the program's process, too (mock_patches.py).
    """

    source: str
    entry_point: str | None
    inputs: tuple[str, ...] = ()
    prelude: str = ""
    tests: bytes | None = None
    test_count: int = 0
    names: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    own_examiner: bool = False
    mock_patches: bool = False
    cpu_seconds: float | None = None
    memory_mb: int | None = None


@dataclass(frozen=True)
class ExecutionResult:
    """What one process reported and how it ended.

    `cause`: exit, signal, cpu, sleep, wall, flood, or lost where the examiner did not come to its end; `code`: exit status
    or signal number. Trust nothing here, except for the lines of a program with tests: those are the examiner's.
    """

    lines: tuple[str, ...]
    cause: str
    code: int
    stdout: str
