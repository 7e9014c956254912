"""Who may be reached: hosts (one spelling), addresses (which are the world's), policy (verdict and reason). No I/O here."""
