"""The child that opens a legacy file: limits first, then torch, then plain tensors out. Run by `modelward.io.legacy` only."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

MEMORY = 6 * 2**30
CPU_SECONDS = 100
FILE_BYTES = 2 * 2**30
SPARE = 512 * 2**20


def limit() -> None:
    """Bound memory, processor time, file size and open files, where the system can."""
    try:
        import resource
    except ImportError:  # no such limits on this system: the parent's clock remains
        return
    bounds = {
        resource.RLIMIT_CPU: CPU_SECONDS, resource.RLIMIT_FSIZE: FILE_BYTES, resource.RLIMIT_NOFILE: 256, resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_CORE: 0,
    }  # fmt: skip
    for kind, value in bounds.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))


def tighten(size: int) -> None:
    """Once torch is loaded, leave memory for four copies of a file of ``size`` bytes and forbid new processes, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        bound = min(MEMORY, used + 4 * size + SPARE)
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def plain_tensors(loaded: Any, size: int) -> dict[str, Any]:
    """Return the tensors of a state dict, or of the state dict inside a checkpoint; raises `ValueError` with the reason to refuse.

    ``size`` is that of the file in bytes: tensors that share or repeat their bytes may unpack to four times as many, not more.
    """
    import torch

    for key in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not loaded:
        raise ValueError("it holds no state dict; save model.state_dict()")
    found, total = {}, 0
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(f"entry {str(name)[:60]!r} is no tensor; save model.state_dict() alone")  # noqa: TRY004  # one error for the parent
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex():
            raise ValueError(f"tensor {name[:60]!r} is sparse, quantised or complex; only plain numbers are converted")
        total += tensor.nbytes
        if tensor.device.type != "cpu" or tensor.nbytes > tensor.untyped_storage().nbytes() or total > 4 * size:
            raise ValueError(f"tensor {name[:60]!r} repeats few bytes many times, or has none; it could fill the memory")
        found[name] = tensor.detach().contiguous().clone()
    return found


def main(source: str, target: str) -> int:
    """Convert ``source``; print why not in one line and return 3 when it is refused."""
    limit()
    import safetensors.torch
    import torch

    torch.sparse.check_sparse_tensor_invariants.enable()
    try:
        size = Path(source).stat().st_size
        tighten(size)
        tensors = plain_tensors(torch.load(source, map_location="cpu", weights_only=True), size)
        Path(target).write_bytes(safetensors.torch.save(tensors, {"format": "pt"}))
    except Exception as error:  # noqa: BLE001  # loaders raise whatever they like; the parent gets one sentence
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = "it names code that a state dict does not need" if "Unsupported" in str(error) or "GLOBAL" in str(error) else None
        sys.stdout.write(f"{text or (lines[0] if lines else type(error).__name__)}\n")
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2]))
