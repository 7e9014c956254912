"""Messages between programs: what each one sends, nothing else. Structs of msgspec; unknown fields are ignored by readers."""
