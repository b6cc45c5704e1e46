"""Fail when a distribution got in that breaks or bloats the CPU environment: torchvision, CUDA packages, triton, another torch."""

from __future__ import annotations

import importlib.metadata
import sys


def main() -> int:
    """Return 1 and say why when the environment is not the one that is tested."""
    names = {str(d.metadata["Name"]).lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}
    wrong = sorted(name for name in names if name.startswith("nvidia-") or name in {"torchvision", "triton"})
    if not names.get("torch", "").startswith("2.13."):
        wrong.append(f"torch {names.get('torch', 'absent')}")
    if wrong:
        print(f"this environment must not hold {', '.join(wrong)}; remove .venv and run make again", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
