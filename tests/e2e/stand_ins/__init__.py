"""The services of the catalogue, as far as a connect and one call need them: answers in the shapes of their APIs.

Service    what to connect with, what comes out, and one call that its server then answers
ALL        one of each
"""

from tests.e2e.stand_ins.services import ALL, Service

__all__ = ["ALL", "Service"]
