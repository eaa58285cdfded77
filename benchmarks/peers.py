"""Environments of the peers: each has its own packages and reads torch and the like from here."""

import os
import subprocess
import sys
import sysconfig
import venv
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name(".peers")
PACKAGES = {
    "lucent": ("torch-lucent==0.1.8", "kornia==0.4.1", "tqdm", "decorator"),
    "horama": ("Horama==0.3.0", "einops"),
    "thingsvision": ("thingsvision==2.7.3",),
    "faccent": ("faccent==1.0.3",),
    "ray-data": ("pandas",),
    "datamapplot": ("datamapplot==0.7.3",),
    "embedding-atlas": ("embedding-atlas==0.26.0",),
}


@cache
def peer_python(name: str) -> Path | str:
    """Return the interpreter that has a peer of `PACKAGES`, or why it cannot be had, in a line.

    The environment is made once. It lies beside the benchmarks and sees the packages of this one
    behind its own, so that torch is neither downloaded twice nor another one than ours.
    """
    if os.environ.get("CNNVIS_PEERS") == "none":
        return "peers were not asked for (CNNVIS_PEERS=none)"
    python = FOLDER / name / "bin" / "python"
    made = FOLDER / name / "made"
    if made.exists():
        return python
    try:
        venv.create(FOLDER / name, with_pip=True, clear=True)
        packages = next((FOLDER / name / "lib").glob("python*")) / "site-packages"
        (packages / "behind.pth").write_text(sysconfig.get_paths()["purelib"])
        command = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES[name]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{name} cannot be had: {type(error).__name__}"
    if done.returncode:
        return f"{name} cannot be had: {last_line(done.stderr)}"
    made.touch()
    return python


def last_line(text: str) -> str:
    """Return the last line that says something, without addresses."""
    lines = [line.strip() for line in text.splitlines() if "rror" in line and "://" not in line]
    return lines[-1][:200] if lines else "pip failed"


if __name__ == "__main__":
    for wanted in sys.argv[1:] or PACKAGES:
        print(f"{wanted}: {peer_python(wanted)}", flush=True)
