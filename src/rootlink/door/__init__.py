"""The door: a process in namespaces of its own, whose every way out is a socket that somebody else holds."""
