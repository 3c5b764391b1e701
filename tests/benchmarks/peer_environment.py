"""The readers that ours is measured beside, in a virtual environment of their own: `.bench`, made on first use.

It sees this project's torch, torchvision, timm and webdataset, so that all decode and resize with the same libraries.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".bench"
ALONE = (
    "simplejpeg",
    "litdata",
    "mosaicml-streaming",
    "paramiko<4",
    "xxhash<4",
    "nvidia-nvimgcodec-cu13",
    "torchcodec",
    "grain",
    "spdl-io",
    "spdl-core",
    "kornia-rs",
    "opencv-python-headless>=5",
    "pyvips",
    "pyvips-binary",
)
"""Without what they ask for: it would bring another torch, or other numbers of ours."""
WITH_THEIRS = (
    "nvidia-dali-cuda130",
    "lightning-utilities",
    "obstore",
    "tifffile",
    "python-snappy",
    "brotli",
    "catalogue",
    "zstd",
    "oci",
    "azure-identity",
    "azure-storage-blob",
    "portpicker",
    "array-record",
)


def python() -> Path:
    """Its interpreter. What cannot be installed is told, and missing in the table."""
    found = FOLDER / "bin" / "python"
    if found.exists():
        return found
    print(f"installing peers into {FOLDER} (1.4 GB)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
    packages = next(FOLDER.glob("lib/python*/site-packages"))
    (packages / "zz_project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name in (*ALONE, *WITH_THEIRS):
        alone = ["--no-deps"] if name in ALONE else []
        done = subprocess.run([found, "-m", "pip", "install", "--quiet", *alone, name], check=False)
        if done.returncode:
            print(f"  {name} could not be installed", flush=True)
    return found
