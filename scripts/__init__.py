"""Tools for development and tests. The services do not need them."""
