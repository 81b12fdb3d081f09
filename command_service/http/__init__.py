"""The command service's HTTP face."""
