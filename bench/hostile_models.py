"""Models, keys and ONNX graphs: small valid files, the doors that read them, and what their digests cover."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hostile_children import forking
from hostile_format import FILE, PIXELS, Format, net, written

from modelward.cli import key_facts
from modelward.core.errors import FormatError
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.io import (
    age,
    container,
    legacy,
    onnx_suspect,
)
from modelward.io import safetensors as st
from modelward.keys.files import read_key, write_key
from modelward.models.files import load_model, save_model
from modelward.models.nets import build


def models_files(room: Path) -> dict[str, Format]:
    """Models of ours and of others, assemblies, legacy files."""
    from modelward import find

    made = [written(lambda path, n=n: save_model(path, n, {"data": "toy"}), room / "m.safetensors") for n in (net(), net(seed=1))]
    made.append(written(lambda path: save_model(path, build("resnet8:width=2", classes=2, rng=generator(0))), room / "m.safetensors"))
    vote = find("ensemble").configured({}).assemble([net(), net(seed=1)])
    assembly = written(lambda path: save_model(path, vote), room / "v.safetensors")
    legacy_files = tuple(
        written(lambda path, c=c: torch.save(c, path), room / "m.pt")
        for c in (net().state_dict(), {"state_dict": {"w": torch.zeros(2, 3)}})
    )

    def convert(path: Path) -> Any:
        legacy.convert_pt(path, room / "out.safetensors", seconds=60.0)

    def convert_forked(path: Path) -> Any:
        with forking(legacy):
            convert(path)

    return {
        "safetensors model": Format(lambda path: load_model(path).model, tuple(made[:2]), room / "m.safetensors", "safetensors", tuple(made), share=2),
        "safetensors model, deep": Format(lambda path: load_model(path).model, (made[2],), room / "m.safetensors", "safetensors", tuple(made)),
        "safetensors assembly": Format(lambda path: load_model(path).model, (assembly,), room / "m.safetensors", "safetensors", tuple(made)),
        "safetensors with --arch": Format(lambda path: load_model(path, "mlp").model, tuple(made[:2]), room / "m.safetensors", "safetensors", tuple(made)),
        "safetensors arrays": Format(st.load_arrays, tuple(made[:1]), room / "m.safetensors", "safetensors", tuple(made)),
        "pt archive check": Format(legacy.check_archive, legacy_files, room / "x.pt", "zip"),
        "pt convert, forked child": Format(convert_forked, legacy_files, room / "x.pt", "zip", most=900),
        "pt convert, whole child": Format(convert, legacy_files, room / "x.pt", "zip", most=4, seconds=60.0),
    }  # fmt: skip


def keys_files(room: Path) -> dict[str, Format]:
    """Keys plain, encrypted, and resealed by somebody who knows how the digest is made."""
    owner, secret = age.pyrage.x25519.Identity.generate(), age.Secret("open sesame")
    keys = [Key("sac", "hardened", "0" * 64, {"alpha": 0.05, "n": n}, {"probes": torch.arange(24 + n, dtype=torch.uint8)}) for n in (0, 8)]
    plain = [written(lambda path, k=k: write_key(path, k), room / "k.mw") for k in keys]
    locked = tuple(age.encrypt(data, recipients=[str(owner.to_public())]) for data in plain)
    header, parts = container.unpack(plain[0])

    def resealed(path: Path) -> Any:
        try:
            path.write_bytes(container.pack(dict(json.loads(path.read_bytes())), parts))
        except (ValueError, TypeError, RecursionError) as error:
            raise FormatError("such a header cannot be written") from error
        key = read_key(path)
        return key_facts.header(key), key_facts.header_lines(key)  # as `modelward key show` does

    def unlocked(path: Path) -> Any:
        return container.read_mw(path, identities=[age.Secret(str(owner))])

    by_word = written(lambda path: write_key(path, keys[0], passphrase=secret), room / "k.mw")
    return {
        "mw key": Format(read_key, tuple(plain), room / "k.mw", "safetensors", share=2, covers=FILE),
        "mw key, age recipient": Format(unlocked, locked, room / "k.mw", donors=tuple(plain), share=1.5, covers=FILE),
        "mw key, age passphrase": Format(lambda path: read_key(path, passphrase=secret), (by_word,), room / "k.mw", most=8, covers=FILE, seconds=30.0),
        "mw key, header resealed": Format(resealed, (json.dumps(header).encode(),), room / "k.mw", "tree"),
        "passphrase file": Format(lambda path: age.read_secret(file=path), (b"open sesame\nsecond\n",), room / "p", "text", share=0.3),
    }  # fmt: skip


def graphs_files(room: Path) -> dict[str, Format]:
    """ONNX suspects, where the packages for them are installed."""
    try:
        import onnx
        import onnxruntime  # noqa: F401  # loaded here, so that a forked child has it
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return {}
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["g"]),
        helper.make_node("Softmax", ["g"], ["y"], axis=1),
    ]
    held = [numpy_helper.from_array(np.ones((192, 2), np.float32), "w"), numpy_helper.from_array(np.zeros(2, np.float32), "b")]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    graph = helper.make_graph(nodes, "net", [x], [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])], held)
    seed = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=min(onnx.IR_VERSION, 9)).SerializeToString()

    def ask(path: Path) -> Any:
        return onnx_suspect.ask_onnx(path, PIXELS, 2, seconds=60.0)

    def ask_forked(path: Path) -> Any:
        with forking(onnx_suspect):
            return ask(path)

    return {
        "onnx, forked child": Format(ask_forked, (seed,), room / "s.onnx", "onnx", most=900),
        "onnx, whole child": Format(ask, (seed,), room / "s.onnx", "onnx", most=4, seconds=60.0),
    }
