"""Servers that a person signs in to: discovery, sign-in, tokens (RFC 6749, 7636, 7591, 8414, 8707, 9207, 9728)."""
