"""The judge of generated programs: cleaning, pylint scores, sandboxed execution and verdicts.

    cleaning/   from a model's text to a program
    lint/       the pylint score of programs
    scorers/    what quality is: pylint, other linters, and combinations
    workers/    server processes that fork a child for every program
    sandbox/    what confines a child: limits, namespaces, Landlock, system-call filter
    execution/  programs and their tests, run in confined children
    verdicts/   from results to verdicts

Imports go from bottom to top: workers < sandbox < execution < verdicts, and workers < lint < scorers. This file and those of the
rooms import nothing, because the server processes load them and must stay small.
"""
