"""Files made to cost time or memory, in the gateway's checks and in the decoders."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time

from shared.errors import UploadError
from shared.image_header import find_end, read_header
from shared.settings import Settings
from tests.support.hostile_files import hostile_files
from tests.support.stack import ROOT

MAX_BYTES = Settings.model_fields["max_upload_bytes"].default
MAX_PIXELS = Settings.model_fields["max_image_pixels"].default


def test_no_file_keeps_the_gateway_from_its_other_requests() -> None:
    """The gateway does nothing else during a step. Measured in CPU time, so a busy machine does not
    matter."""
    slow, refused, number = {}, 0, 0
    gc.collect()
    gc.freeze()  # as the gateway does, and so that garbage of other tests is not measured
    for name, data in hostile_files(MAX_BYTES):
        number += 1
        begin = time.thread_time()
        longest = 0.0
        try:
            header = read_header(data, max_pixels=MAX_PIXELS)
            longest = time.thread_time() - begin
            steps = find_end(data, header)
            begin = time.thread_time()
            for _ in steps:
                longest = max(longest, time.thread_time() - begin)
                begin = time.thread_time()
        except UploadError:
            refused += 1
        longest = max(longest, time.thread_time() - begin)
        if longest > 0.2:
            slow[name] = longest
    gc.unfreeze()
    assert slow == {}
    assert number > 300
    assert 0 < refused < number


DECODE_ALL = """
import json, os, resource, sys, time
import cv2
from shared.errors import UndecodableImage, UploadError
from shared.image_header import check_file
from tests.support.hostile_files import hostile_files
from worker.model.images import decode

max_bytes, max_pixels = map(int, sys.argv[1:])
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # OpenCV logs much about them
cv2.setNumThreads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
seconds, decoded, undecodable = {}, 0, 0
for name, data in hostile_files(max_bytes):
    try:
        check_file(data, max_pixels=max_pixels)
    except UploadError:
        continue
    begin = time.process_time()
    try:
        picture = decode(data, max_pixels=max_pixels).pixels
        assert picture.shape[0] * picture.shape[1] <= max_pixels, name
        decoded += 1
    except UndecodableImage:
        undecodable += 1
    seconds[name] = time.process_time() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
slowest = max(seconds, key=seconds.get)
print(json.dumps({
    "decoded": decoded, "undecodable": undecodable, "peak_mib": peak >> 10,
    "slowest": slowest, "seconds": seconds[slowest],
}))
"""


def test_no_file_takes_the_worker_s_memory_or_time() -> None:
    out = subprocess.run(
        [sys.executable, "-c", DECODE_ALL, str(MAX_BYTES), str(MAX_PIXELS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert out.returncode == 0, (out.returncode, out.stdout)
    found = json.loads(out.stdout)
    assert found["decoded"] > 50
    assert found["undecodable"] > 50
    # The largest allowed picture of 16 bits with alpha takes 800 MiB and 3 s.
    assert found["peak_mib"] < 1300, found
    assert found["seconds"] < 15, found
