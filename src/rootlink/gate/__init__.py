"""The gate: it accepts what is connected to behind doors, decides, dials, copies. It holds policies and sockets, no secret."""
