"""Whether a connection will work, before it is kept (`wire/checks.py`): the engine asks, behind the door of that connection.

checks     one after the other, and what they come to
http, tcp, tool: one kind each, which asks, and says what was found or raises what is wrong
answers    what an answer holds: members by dotted path, texts to be shown
filling    secrets put into what is sent
"""

from rootlink.engine.checks.checks import Checks
from rootlink.engine.checks.tool import Ask

__all__ = ["Ask", "Checks"]
