"""Builds views anew beside those in use, and puts them in their place while the service goes on."""
