"""Reading the body of an S3 answer without trusting its pace or its length. Makes no calls."""

import time
from typing import Any

from vitpipe.infra.retry import Patience
from vitpipe.infra.storage.s3_errors import Doubtful

_READ_BYTES = 256 * 1024


def body_of(answer: Any, patience: Patience) -> bytes:
    """Read a GetObject's body whole. Doubtful when it is shorter than announced or comes too slowly.

    botocore checks neither the pace nor, read in pieces, the length.
    """
    announced = int(answer["ContentLength"])
    received = bytearray()
    window_start, window_bytes = time.monotonic(), 0
    with answer["Body"] as stream:
        # read1 gives what has arrived; StreamingBody.read would wait for all of it, byte by byte if need be
        while chunk := stream.read1(_READ_BYTES):
            received += chunk
            seconds = time.monotonic() - window_start
            if seconds > patience.stall_s:
                pace = (len(received) - window_bytes) / seconds
                if pace < patience.floor_bytes_per_s:
                    raise Doubtful(f"the body came at {pace:.0f} bytes/s")
                window_start, window_bytes = time.monotonic(), len(received)
    if len(received) != announced:
        raise Doubtful(f"the body ended after {len(received)} of {announced} bytes")
    return bytes(received)
