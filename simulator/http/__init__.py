"""The HTTP server, and what REST and the dump site share: broken answers and fault rules."""
