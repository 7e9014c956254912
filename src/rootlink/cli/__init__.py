"""The command line: one file a group of commands, each command thin, all of it on the public API (CONTRACT §2, §3).

Rule 1. Data on stdout, everything else (steps, hints, errors) on stderr; `--json` prints the API's own data.
Rule 2. An error is one line, `rootlink: <code>: <message>`; exit 0 on success only, 2 for a command used wrongly, 1 for the rest.
Rule 3. No secret is taken from argv, and none is printed but a project key at the moment it is made.
Rule 4. What a server wrote reaches a terminal only through `screen.clean`.
Rule 5. Importing a command's file costs typer and this package; rich and the programs are loaded by the commands that need them.
"""
