"""A key of a tiny net, the same net as an ONNX graph in every dress, and a server on this machine."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from modelward import SAC, generator
from modelward.core.key import Key
from modelward.keys import write_key

COUNT = 60


@pytest.fixture(scope="session")
def mlp_victim(original) -> Any:
    """Return the MLP that stands behind every door: one that has siblings."""
    return original


@pytest.fixture(scope="session")
def key(hard, mlp_victim, kin) -> Key:
    """Return a key of the MLP with its siblings: whoever answers like the MLP is related."""
    return SAC(variant="hardened", count=COUNT).protect(mlp_victim, hard.probes, siblings=kin, rng=generator(1))[1]


@pytest.fixture(scope="session")
def key_file(key, tmp_path_factory) -> Path:
    """Return that key as a file."""
    path = tmp_path_factory.mktemp("key") / "owner.mw"
    write_key(path, key)
    return path


def graph(
    net: Any,
    *,
    layout: str = "NCHW",
    kind: str = "float32",
    batch: Any = "n",
    tail: tuple[str, ...] = (),
    opset: int = 17,
    head: tuple[Any, ...] = (),
    sizes: tuple[Any, Any, Any] | None = None,
) -> Any:
    """Return the ONNX model of an MLP; ``head`` and ``tail`` are further nodes before and after, as (operator, domain) or operator."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    names = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64}
    constants = {"mean": net.mean.numpy(), "std": net.std.numpy(), "full": np.array(255, dtype=np.float32)}
    nodes, at = [helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT)], "c"

    def then(operator: str, *more: str, domain: str = "", **attributes: Any) -> None:
        nonlocal at
        nodes.append(helper.make_node(operator, [at, *more], [f"v{len(nodes)}"], domain=domain, **attributes))
        at = f"v{len(nodes) - 1}"

    if kind == "uint8":
        then("Div", "full")
    if layout == "NHWC":
        then("Transpose", perm=[0, 3, 1, 2])
    for operator in head:
        then(operator)
    then("Sub", "mean")
    then("Div", "std")
    then("Flatten")
    for index, layer in enumerate(net.body):
        if isinstance(layer, nn.Linear):
            constants |= {f"w{index}": layer.weight.detach().numpy(), f"b{index}": layer.bias.detach().numpy()}
            then("Gemm", f"w{index}", f"b{index}", transB=1)
        elif isinstance(layer, nn.ReLU):
            then("Relu")
    for operator in tail:
        name, _, domain = operator.partition("@")
        then(name, domain=domain, **({"axis": 1, "keepdims": 0} if name == "ArgMax" else {}))
    nodes.append(helper.make_node("Identity", [at], ["y"]))
    channels, (height, width) = net.channels, net.size
    dims = sizes or ((channels, height, width) if layout == "NCHW" else (height, width, channels))
    x = helper.make_tensor_value_info("x", names[kind], [batch, *dims])
    y = helper.make_tensor_value_info("y", TensorProto.INT64 if "ArgMax" in tail else TensorProto.FLOAT, None)
    made = helper.make_graph(nodes, "net", [x], [y], [numpy_helper.from_array(value, name) for name, value in constants.items()])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=min(onnx.IR_VERSION, 9))


@pytest.fixture
def onnx_file(tmp_path, mlp_victim) -> Callable[..., Path]:
    """Return the writer of ONNX files: ``onnx_file(change=None, net=victim, **dress)``."""
    pytest.importorskip("onnxruntime")

    def write(change: Callable[[Any], None] | None = None, *, net: Any = mlp_victim, **dress: Any) -> Path:
        model = graph(net, **dress)
        if change:
            change(model)
        path = tmp_path / "suspect.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


@pytest.fixture(scope="session")
def truth(key, mlp_victim) -> torch.Tensor:
    """Return the MLP's probabilities for the key's probes."""
    from modelward.core.guard import predict

    return predict(mlp_victim, key.tensors["probes"]).softmax(1)


Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Service:
    """A server, what it was asked, and how it answers: a function from (number of the request, images) to status, headers and body."""

    url: str = ""
    requests: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answer: Callable[[int, Any], Answer] = lambda *_: (500, {}, b"")

    @property
    def images(self) -> int:
        return sum(len(request) for request in self.requests)


@pytest.fixture
def service() -> Iterator[Service]:
    """Return a running server."""
    made = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.headers.append(dict(self.headers))
            made.requests.append(document["instances"])
            status, headers, body = made.answer(len(made.requests) - 1, document["instances"])
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json"} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
    made.url = f"http://127.0.0.1:{server.server_port}/v1/model"
    yield made
    server.shutdown()
    server.server_close()
