from __future__ import annotations

import subprocess
import sys


def test_the_gateway_stays_thin() -> None:
    """Asked of a fresh interpreter, since the tests' own has everything loaded."""
    code = (
        "import sys, api.app; api.app.create_app();"
        "print(*[m for m in ('torch', 'ultralytics', 'cv2', 'numpy', 'celery', 'worker')"
        " if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_inspecting_needs_no_torch() -> None:
    code = (
        "import sys, worker.app; worker.app.app.loader.import_default_modules();"
        "print(*[m for m in ('torch', 'ultralytics', 'cv2') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""
