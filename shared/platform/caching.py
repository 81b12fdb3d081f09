"""What a client or a cache may keep of an answer, and how it asks whether that still holds.

RFC 9110, section 13, and RFC 9111.
"""

import re
from hashlib import sha256

ASK_AGAIN = b"no-cache"
"""To be kept, and asked about each time. What is told of a past position, too, lasts only as long as its ledger does:
there may be another one at the same address, or views that were mended."""
ETAG_CHARS = 24
"""Of the body's SHA-256, for which most processors have instructions."""

_tags = re.compile(rb'"[!#-~\x80-\xff]*"').findall


def etag_of(body: bytes) -> bytes:
    """The entity tag of an answer with that body.

    A version or a position would do for less, if it were not for those other ledgers, whose accounts have the same ids.
    """
    return b'"%b"' % sha256(body).hexdigest()[:ETAG_CHARS].encode()


def is_named(etag: bytes, if_none_match: bytes) -> bool:
    """Does the client have it already? Weak tags are compared without their mark, and what is no tag is passed over."""
    return if_none_match.strip() == b"*" or etag in _tags(if_none_match)
