"""What an ONNX file is made of, checked before anything of it runs. Used by `modelward.io.onnx_child` only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

NODE_CAP = 20_000
TENSOR_CAP = 20_000
DEPTH_CAP = 8
CALL_CAP = 32
BATCH = 256
BATCH_CAP = 4_096
TYPES = {1: "float32", 2: "uint8", 10: "float16", 11: "float64"}
RANDOM = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"})


class Refused(Exception):  # noqa: N818  # it is an answer, not a failure
    """Why a file is not run; ``unsafe`` when it could do harm."""

    def __init__(self, why: str, *, unsafe: bool = False) -> None:
        super().__init__(why)
        self.unsafe = unsafe


@dataclass(frozen=True)
class Feed:
    """How images go in: the input's name and numpy type, NCHW or NHWC, images a batch (padded when the graph fixes it), what is odd."""

    name: str
    type: str
    layout: str
    batch: int
    fixed: bool
    notes: tuple[str, ...] = ()


def check(model: Any, shape: tuple[int, int, int]) -> Feed:
    """Return how images of ``shape`` (C, H, W) are fed to a parsed ``ModelProto``; raises `Refused`."""
    nodes = list(_nodes(model))
    for tensor in _tensors(model, nodes):
        if tensor.data_location == tensor.EXTERNAL or len(tensor.external_data):
            raise Refused(
                "its weights lie in other files, which are never followed; save it as one file (onnx.save_model without external data)",
                unsafe=True,
            )
    _require_operators(model, nodes)
    _require_modest_functions(model)
    drawn = sorted({node.op_type for node in nodes} & RANDOM)
    notes = (f"The ONNX graph draws random numbers ({drawn[0]}): asked again it would answer differently.",) if drawn else ()
    return _feed(model, shape, (*notes, *_in_training(model, nodes)))


def _in_training(model: Any, nodes: list[Any]) -> tuple[str, ...]:
    """Say that a layer was exported as it is in training: then an answer depends on what else is asked with it, or on chance."""
    off = {tensor.name for tensor in model.graph.initializer if _zero(tensor)}
    constants = [node for node in nodes if node.op_type == "Constant" and all(_zero(attribute.t) for attribute in node.attribute)]
    off |= {name for node in constants for name in node.output}
    found = set()
    for node in nodes:
        ints = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type == "BatchNormalization" and (ints.get("training_mode") or len(node.output) > 1):
            found.add("BatchNormalization")
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] and node.input[2] not in off:
            found.add("Dropout")
    return tuple(
        f"The ONNX file was exported in training mode ({name}): its answers depend on what is asked with them, or on chance; export it in eval mode."
        for name in sorted(found)
    )


def _zero(tensor: Any) -> bool:
    """Return whether a tensor is one boolean that says no; larger ones are not looked into."""
    one = len(tensor.raw_data) <= 1 and len(tensor.int32_data) <= 1
    return one and not any(tensor.raw_data) and not any(tensor.int32_data)


def _graphs(model: Any) -> Iterator[Any]:
    """Yield the main graph, those of training, and local functions."""
    yield model.graph
    for info in model.training_info:
        yield info.initialization
        yield info.algorithm
    yield from model.functions


def _nodes(model: Any) -> Iterator[Any]:
    """Yield every node of a model, those of nested graphs too."""
    return _nodes_of(*_graphs(model))


def _nodes_of(*graphs: Any) -> Iterator[Any]:
    """Yield every node of some graphs, and of the graphs in them."""
    left, count = [(graph, 0) for graph in graphs], 0
    while left:
        graph, depth = left.pop()
        count += len(graph.node)
        if depth > DEPTH_CAP or count > NODE_CAP:
            what = f"graphs nested deeper than {DEPTH_CAP}" if depth > DEPTH_CAP else f"more than {NODE_CAP:,} nodes"
            message = f"it has {what}"
            raise Refused(message, unsafe=True)
        for node in graph.node:
            yield node
            for attribute in node.attribute:
                left += [(inner, depth + 1) for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ()))]


def _tensors(model: Any, nodes: list[Any]) -> Iterator[Any]:
    """Yield every constant: initialisers of all graphs, tensors in attributes."""
    inner = [graph for node in nodes for a in node.attribute for graph in (*a.graphs, *([a.g] if a.HasField("g") else ()))]
    sparse: list[Any] = []
    count = 0
    for graph in (*_graphs(model), *inner):
        if not hasattr(graph, "initializer"):  # a local function has none
            continue
        count += len(graph.initializer) + len(graph.sparse_initializer)
        if count > TENSOR_CAP:
            message = f"it has more than {TENSOR_CAP:,} tensors"
            raise Refused(message, unsafe=True)
        yield from graph.initializer
        sparse += graph.sparse_initializer
    for attribute in (a for node in nodes for a in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def _require_operators(model: Any, nodes: list[Any]) -> None:
    """Refuse operators that standard ONNX does not have."""
    import onnx.defs

    known: dict[str, int] = {}
    for opset in model.opset_import:
        known["" if opset.domain == "ai.onnx" else opset.domain] = opset.version
    local = {(function.domain, function.name) for function in model.functions}
    for node in nodes:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (node.domain, node.op_type) in local:
            continue
        if domain not in {"", "ai.onnx.ml"}:
            message = f"operator {node.op_type[:40]!r} is of the custom domain {domain[:60]!r}; export the model with standard ONNX operators only"
            raise Refused(message)
        try:
            onnx.defs.get_schema(node.op_type, known.get(domain, 1), domain)
        except onnx.defs.SchemaError as error:
            message = f"there is no operator {node.op_type[:40]!r} in ONNX opset {known.get(domain, 1)}; export the model again"
            raise Refused(message) from error


def _require_modest_functions(model: Any) -> None:
    """Refuse local functions that unfold to more than `NODE_CAP` nodes, or without end: a few that call each other twice would do."""
    bodies: dict[tuple[str, str], list[Any]] = {}
    for function in model.functions:  # of several overloads the longest counts
        body = list(_nodes_of(function))
        bodies[function.domain, function.name] = max(body, bodies.get((function.domain, function.name), []), key=len)
    sizes: dict[tuple[str, str], int] = {}

    def unfolded(nodes: list[Any], depth: int) -> int:
        total = 0
        for node in nodes:
            name = (node.domain, node.op_type)
            if name in bodies and name not in sizes:
                if depth > CALL_CAP:
                    message = f"its functions call each other more than {CALL_CAP} deep"
                    raise Refused(message, unsafe=True)
                sizes[name] = unfolded(bodies[name], depth + 1)
            total += sizes.get(name, 1)
            if total > NODE_CAP:
                message = f"its functions unfold to more than {NODE_CAP:,} nodes"
                raise Refused(message, unsafe=True)
        return total

    unfolded(list(_nodes_of(model.graph)), 0)


def _order(model: Any, name: str) -> str:
    """Return where the channels stand of an input whose sizes say nothing: last where the graph begins by bringing them to the front."""
    first = [node for node in model.graph.node if name in node.input]
    perms = [
        list(attribute.ints) for node in first if node.op_type == "Transpose" for attribute in node.attribute if attribute.name == "perm"
    ]
    return "NHWC" if first and len(perms) == len(first) and all(perm == [0, 3, 1, 2] for perm in perms) else "NCHW"


def _feed(model: Any, shape: tuple[int, int, int], notes: tuple[str, ...]) -> Feed:
    """Read the one input: its type, and where batch, channels, height and width stand."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        message = f"it takes {len(inputs)} inputs; a suspect takes one image batch"
        raise Refused(message)
    tensor = inputs[0].type.tensor_type
    kind = TYPES.get(tensor.elem_type)
    dims = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in tensor.shape.dim]
    if kind is None or len(dims) != 4:
        sizes = "x".join("?" if dim is None else str(dim) for dim in dims) or "unknown shape"
        message = f"its input is {sizes} of type {tensor.elem_type} in ONNX numbers; a suspect takes float32 (N, C, H, W) with pixels in [0, 1], or uint8"
        raise Refused(message)
    channels, height, width = shape
    wanted = {"NCHW": (channels, height, width), "NHWC": (height, width, channels)}
    fits = [name for name, sizes in wanted.items() if all(dim in {None, size} for dim, size in zip(dims[1:], sizes, strict=True))]
    if not fits:
        sizes = "x".join("?" if dim is None else str(dim) for dim in dims[1:])
        message = f"it takes images of {sizes}, the key's probes are {channels}x{height}x{width} (channels, height, width)"
        raise Refused(message)
    if len(fits) > 1:
        fits = [_order(model, inputs[0].name)]
        notes += (f"The ONNX file does not say where its channels stand: they were read as {fits[0]}.",)
    if fits[0] == "NHWC":
        notes += ("The ONNX file takes channels last (NHWC): the probes were turned round for it.",)
    if kind == "uint8":
        notes += ("The ONNX file takes whole pixels (uint8): the probes went in as 0 to 255.",)
    batch = dims[0] or BATCH
    if batch > BATCH_CAP:
        message = f"it takes batches of exactly {batch:,} images, more than the {BATCH_CAP:,} that are tried"
        raise Refused(message)
    return Feed(inputs[0].name, kind, fits[0], batch, dims[0] is not None, notes)
