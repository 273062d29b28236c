"""The whole study, one script after the other: ``python bench/study``. About an hour on one core.

Sets are found through ``UNIROUTE_DATA``; ``--quick`` runs two trials of each, to see that all is
well.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "routing",
    "few_labels",
    "labels",
    "left_out_task",
    "intervals",
    "probes",
    "label_noise",
    "preferences",
    "ablations",
    "limits",
    "theory",
)


def main() -> None:
    few = ["--trials", "2"] if "--quick" in sys.argv[1:] else []
    for name in SCRIPTS:
        print(f"\n== {name}", flush=True)
        script = Path(__file__).with_name(f"{name}.py")
        subprocess.run([sys.executable, str(script), *few], check=True)


if __name__ == "__main__":
    main()
