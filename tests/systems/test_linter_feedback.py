"""What a model is told by the linter about its first answer."""

from cptlab.records import Message, Quality, Verdict
from cptlab.systems.feedback import LinterMessages
from cptlab.tasks.kata import kata


def test_the_messages_are_told_at_their_lines():
    (task,) = kata().split("test", 1)
    messages = (Message("W0622", "redefined-builtin", 3), Message("W0612", "unused-variable", 2))
    said = LinterMessages().tell(task, Quality(5.0, 4, False, messages), Verdict("passed"))
    assert said == "A linter remarks on it:\nline 2: unused-variable (W0612)\nline 3: redefined-builtin (W0622)"
    assert LinterMessages(most=1).tell(task, Quality(5.0, 4, False, messages), Verdict("passed")).count("line ") == 1
    assert LinterMessages().tell(task, Quality(10.0, 4, False), Verdict("failed")) is None
