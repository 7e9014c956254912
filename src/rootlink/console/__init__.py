"""The web Console. For now a page that says how to begin; the Console itself is not built yet."""
