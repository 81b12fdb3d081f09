"""Consumes events, owns the views and answers queries."""
