"""Secrets at rest. `seal.py` closes (gateway), `unseal.py` opens (provisioner alone), `envelope.py` is what is closed.

There is no import here on purpose: whoever imports the package must not get `unseal` with it.
"""
