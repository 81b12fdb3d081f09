"""What the ledger is about, without I/O: commands, what is decided of them, and what events change."""
