"""The contract between the two services. Imports neither of them."""
