"""Which neurons of a network may be renamed or rescaled without changing its answers, found by tracing it once."""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import fx, nn
from torch.nn import functional as F

from modelward.core.errors import InputError
from modelward.models.net import Net

Norm = nn.BatchNorm1d | nn.BatchNorm2d
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, *POOLS)  # f(a x) = a f(x) for a > 0
ELEMENTWISE = (*HOMOGENEOUS, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid, nn.ELU)
HOMOGENEOUS_CALLS = (
    F.relu,
    torch.relu,
    F.leaky_relu,
    torch.flatten,
    F.max_pool2d,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    F.dropout,
    "relu",
    "flatten",
    "contiguous",
)
ELEMENTWISE_CALLS = (*HOMOGENEOUS_CALLS, F.relu6, F.gelu, F.silu, F.hardswish, F.elu, torch.tanh, torch.sigmoid, "tanh", "sigmoid")
SUMS = (operator.add, operator.iadd, torch.add)
LEAVES = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, *ELEMENTWISE)


@dataclass(eq=False)
class Group:
    """Neurons that must be treated alike: the outputs of some layers, carried through others, read by some.

    Parameters
    ----------
    size
        number of channels.
    writers
        layers with a row of weights per channel, normalisation and depthwise layers that carry the channels included.
    readers
        linear and convolutional layers with columns of weights per channel.
    absorbers
        batch normalisations that undo the scale of what they read; only when groups are made for rescaling.
    filters
        depthwise convolutions that read one channel each; only when groups are made for rescaling.
    free
        whether all that touches these channels is understood.
    """

    size: int
    writers: list[nn.Module] = field(default_factory=list)
    readers: list[nn.Linear | nn.Conv2d] = field(default_factory=list)
    absorbers: list[Norm] = field(default_factory=list)
    filters: list[nn.Conv2d] = field(default_factory=list)
    free: bool = True


class _Tracer(fx.Tracer):
    """Traces into modules except those that are known, or that resist."""

    def __init__(self, leaves: set[nn.Module]) -> None:
        super().__init__()
        self.leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether ``m`` is one node of the graph."""
        return m in self.leaves or isinstance(m, LEAVES) or super().is_leaf_module(m, module_qualified_name)


def traced(model: nn.Module) -> tuple[nn.Module, fx.Graph]:
    """Return the part of ``model`` that computes the logits, and its graph; modules that cannot be traced stand in it as one node.

    Raises
    ------
    InputError
        when the network's own forward function cannot be traced.
    """
    root = model.body if isinstance(model, Net) else model
    leaves: set[nn.Module] = set()
    if isinstance(root, LEAVES):
        root = nn.Sequential(root)
    graph: fx.Graph | None = None
    for module in reversed(list(root.modules())):  # children before the modules that call them
        try:
            graph = None if isinstance(module, LEAVES) else _Tracer(leaves).trace(module)
        except Exception:  # noqa: BLE001  # whatever somebody else's forward function raises on a symbolic input
            graph = None
            leaves.add(module)
    if graph is None:
        message = f"the neurons of this {type(root).__name__} cannot be followed: its forward function depends on the values of its input"
        raise InputError(message)
    return root, graph


class _Walk:
    """One pass over the graph that collects the groups."""

    def __init__(self, root: nn.Module, graph: fx.Graph, *, scaling: bool) -> None:
        self.modules = dict(root.named_modules())
        self.calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
        self.scaling = scaling
        self.of: dict[fx.Node, Group] = {}
        self.groups: list[Group] = []
        for node in graph.nodes:
            self.of[node] = self.visit(node)

    def new(self, size: int, *writers: nn.Module, free: bool = True) -> Group:
        """Return a group of its own."""
        self.groups.append(Group(size, list(writers), free=free))
        return self.groups[-1]

    def opaque(self, node: fx.Node) -> Group:
        """Freeze all that ``node`` reads, and what it writes."""
        for source in node.all_input_nodes:
            self.of[source].free = False
        return self.new(0, free=False)

    def visit(self, node: fx.Node) -> Group:
        """Return the group of the channels that ``node`` gives."""
        sources = node.all_input_nodes
        if node.op == "call_module" and len(sources) == 1:
            return self.layer(node, self.modules[str(node.target)], self.of[sources[0]])
        calls = HOMOGENEOUS_CALLS if self.scaling else ELEMENTWISE_CALLS
        if node.op in {"call_function", "call_method"}:
            if node.target in SUMS and len(sources) == 2 and self.of[sources[0]].size == self.of[sources[1]].size:
                return self.merge(self.of[sources[0]], self.of[sources[1]])
            if node.target in calls and len(sources) == 1:
                return self.of[sources[0]]
        return self.opaque(node)

    def layer(self, node: fx.Node, module: nn.Module, source: Group) -> Group:
        """Return the group of the outputs of one module."""
        if isinstance(module, HOMOGENEOUS if self.scaling else ELEMENTWISE):
            return source
        if self.calls[node.target] > 1:  # weights that serve twice
            return self.opaque(node)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.num_features == source.size:
            return self.norm(node, module, source)
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            return self.depthwise(node, module, source)
        if isinstance(module, nn.Linear | nn.Conv2d):
            inputs, outputs = module.weight.shape[1], module.weight.shape[0]
            if source.size and inputs % source.size == 0:
                source.readers.append(module)
            else:
                source.free = False
            return self.new(outputs, module)
        return self.opaque(node)

    def norm(self, node: fx.Node, module: Norm, source: Group) -> Group:
        """Carry channels through a batch normalisation; for rescaling it ends one group and begins the next."""
        if not self.scaling:
            source.writers.append(module)
            return source
        if module.weight is None or module.running_var is None:
            return self.opaque(node)
        source.absorbers.append(module)
        return self.new(source.size, module)

    def depthwise(self, node: fx.Node, module: nn.Conv2d, source: Group) -> Group:
        """Carry channels through a convolution of every channel by itself."""
        if not module.groups == module.in_channels == module.out_channels == source.size:
            return self.opaque(node)
        if not self.scaling:
            source.writers.append(module)
            return source
        source.filters.append(module)
        return self.new(source.size, module)

    def merge(self, kept: Group, other: Group) -> Group:
        """Make two groups that are added to each other one."""
        if kept is not other:
            for name in ("writers", "readers", "absorbers", "filters"):
                getattr(kept, name).extend(getattr(other, name))
            kept.free = kept.free and other.free
            self.groups.remove(other)
            self.of = {node: kept if group is other else group for node, group in self.of.items()}
        return kept


def groups(model: nn.Module, *, scaling: bool = False) -> list[Group]:
    """Return the groups of hidden neurons that can be treated without changing the function of ``model``, from the input to the logits.

    Parameters
    ----------
    scaling
        groups for rescaling by positive factors instead of for renaming: activations that saturate then end the freedom of their channels, and
        batch normalisation gives freedom on either side.

    Raises
    ------
    InputError
        when the network cannot be traced or nothing in it is free.

    Examples
    --------
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    >>> [(group.size, len(group.writers), len(group.readers)) for group in groups(net)]
    [(8, 1, 1)]
    """
    walk = _Walk(*traced(model), scaling=scaling)
    found = [group for group in walk.groups if group.free and group.size > 1 and (group.readers or group.absorbers or group.filters)]
    if not found:
        message = f"no neuron of this {type(model).__name__} can be {'rescaled' if scaling else 'renamed'} without changing its answers"
        raise InputError(message)
    return found


def folds(model: nn.Module) -> list[tuple[nn.Conv2d | nn.Linear, Norm]]:
    """Return every linear or convolutional layer whose outputs go into one batch normalisation and nowhere else, with it."""
    root, graph = traced(model)
    modules = dict(root.named_modules())
    found: list[tuple[nn.Conv2d | nn.Linear, Norm]] = []
    for node in graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_var is not None and module.weight is not None:
            source = node.all_input_nodes[0]
            layer = modules.get(str(source.target)) if source.op == "call_module" else None
            if isinstance(layer, nn.Linear | nn.Conv2d) and len(source.users) == 1:
                found.append((layer, module))
    return found
