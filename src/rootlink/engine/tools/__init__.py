"""Which of a server's tools are listed and called, and when a person is asked first.

pins.py      the fingerprint of a definition
lint.py      what is odd about a definition, in words (looks.py: characters; phrases.py: instructions)
control.py   one server's (or function's) tools: rules, what was agreed to, what is held back
guard.py     all of an engine's controls, and its clients' answers to "may it be called?"
question.py  that question
"""
