"""zstd (RFC 8878): the standard library's own from Python 3.14 on."""

import sys

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

CODING = "zstd"
"""Its name in HTTP (RFC 8878, section 7.2)."""
