"""The rest of a traced module, divided into stages by who reads which player."""

from __future__ import annotations

import numpy as np
import torch
from torch import fx, nn

from skprune.evaluation._graph import has_hooks
from skprune.evaluation._lineup import BLOCK_SIZE, Lineup
from skprune.evaluation._split import LayerTracer, has_side_effect, holds_any
from skprune.evaluation._stages import Entry, Stage, StagedModule
from skprune.networks import (
    ColumnSelection,
    MaskedModule,
    agree,
    map_tensors,
    tensors_in,
)

__all__ = ["staged"]

# Numbers that the entry of a layer of single weights may hold.
_ENTRY_WEIGHTS = 2**24


def staged(split, features):
    """Divide the rest of a split module into stages, and try them out.

    Parameters
    ----------
    split : SplitModule
        A module, cut in front of its first layer that reads players. Not changed.
    features : list or dict of tensors
        What the rest reads.

    Returns
    -------
    StagedModule
        Of one stage where the rest could not be traced, or where the stages give
        other outputs than the whole, as a module may that works in place.
    """
    features = map_tensors(lambda x: x[:2], features)
    single = _undivided(split, features)
    expected, _ = _measure(single.whole, features, [])
    rest = split.rest
    if split.front is None:
        rest = _traced(rest, features, split.players)
    divided = None if rest is None else _divided(rest, split.players, features)
    works = divided is not None and _agrees(divided, features, expected)
    return divided if works else single


def _undivided(split, features):
    """One stage that is all of the rest."""
    keys = None if split.front is None else list(range(len(features)))
    whole = Stage(split.rest, keys, [], [])
    nothing = np.zeros(split.players.n_players, dtype=int)
    return StagedModule(split.rest, split.players, whole, [whole], nothing).replica()


def _traced(module, features, players):
    """A module that was not cut as a graph, or None where it cannot be traced."""
    if next(module.children(), None) is None:
        # Its own weights are no layer's of the graph.
        return None
    try:
        graph = LayerTracer(players).trace(module)
    except Exception:
        # As for the cut: the user's forward can fail on proxies in any way.
        return None
    inputs = {node.target for node in graph.nodes if node.op == "placeholder"}
    given = (
        inputs == set(features)
        if isinstance(features, dict)
        else (len(inputs) == len(features))
    )
    effects = any(has_side_effect(module, node) for node in graph.nodes)
    result = _result(graph)
    if effects or not given or not isinstance(result, fx.Node):
        return None
    return fx.GraphModule(module, graph)


def _divided(rest, players, features):
    """A stage for all players that are read by the same layers."""
    graph = rest.graph
    groups, stage_of = _groups_of_readers(rest, players)
    behind = [_behind(graph, names) for names in groups]
    entries = [
        _entry_nodes(rest, players, nodes, names, stage_of == number)
        for number, (nodes, names) in enumerate(zip(behind, groups, strict=True))
    ]
    after = [nodes - set(own) for nodes, own in zip(behind, entries, strict=True)]
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    kept = set().union(*(_border(graph, nodes) for nodes in behind + after))
    slots = [node for node in graph.nodes if node in kept and node not in inputs]
    keys = {
        node: node.target if isinstance(features, dict) else i
        for i, node in enumerate(inputs)
    }
    played = {n for n in graph.nodes if n.op not in ("placeholder", "output")}
    whole = _part(rest, played, keys, slots)
    stages = []
    for number, own in enumerate(entries):
        stage = _part(rest, after[number], keys, slots)
        members = stage_of == number
        stage.entries = [_entry(rest, players, n, members, keys, slots) for n in own]
        if own:
            stage.without_entries = _part(rest, behind[number], keys, slots)
        stages.append(stage)
    return StagedModule(rest, players, whole, stages, stage_of).replica()


def _groups_of_readers(rest, players):
    """Sets of layers that read the same players, and each player's set."""
    readers = [set() for _ in range(players.n_players)]
    # A list: a layer that is a player may read players too.
    reading = [*players.consumers.items()]
    reading += [(name, owners.ravel()) for name, owners in players.weights.items()]
    reading += [(name, np.array([own])) for name, own in players.layers.items()]
    for name, owners in players.normalizations.items():
        # A BatchNorm or PReLU works unit by unit; a LayerNorm takes its statistics
        # over the players present.
        if isinstance(rest.get_submodule(name), nn.LayerNorm):
            reading.append((name, owners))
    for name, owners in reading:
        for player in np.unique(owners[owners >= 0]):
            readers[player].add(name)
    readers = [frozenset(names) for names in readers]
    groups = list(dict.fromkeys(readers))
    return groups, np.array([groups.index(names) for names in readers])


def _behind(graph, names):
    """Nodes of the layers of these names, and all that depends on them."""
    behind = set()
    for node in graph.nodes:
        reads = any(parent in behind for parent in node.all_input_nodes)
        called = node.op == "call_module" and holds_any(node.target, names)
        if node.op != "output" and (reads or called):
            behind.add(node)
    return behind


def _entry_nodes(rest, players, behind, names, members):
    """Linear layers that read a stage's players and nothing else that changes."""
    nodes = []
    for node in behind:
        if node.op != "call_module" or node.target not in names:
            continue
        layer = rest.get_submodule(node.target)
        plain = type(layer) is nn.Linear and not has_hooks(layer)
        # In half precision a sum of many updates would lose too much.
        plain = plain and layer.weight.dtype in (torch.float32, torch.float64)
        # What a layer that may be left out gives is not always a sum of products.
        plain = plain and node.target not in players.layers
        alone = len(node.args) == 1 and node.args[0] not in behind and not node.kwargs
        if plain and alone and _has_entry(players, node.target, members):
            nodes.append(node)
    return nodes


def _has_entry(players, name, members):
    """Whether each player of a stage adds columns, or weights, of a layer alike."""
    if name in players.weights:
        return len(members) * len(players.weights[name]) <= _ENTRY_WEIGHTS
    owners = players.consumers.get(name)
    if owners is None:
        return False
    counts = np.bincount(owners[owners >= 0], minlength=len(members))[members]
    return bool((counts == counts[0]).all())


def _entry(rest, players, node, members, keys, slots):
    """The entry that a node is."""
    weight = rest.get_submodule(node.target).weight.detach().t()
    make = _of_weights if node.target in players.weights else _of_columns
    columns, weights = make(players, node.target, members, weight)
    source = node.args[0]
    return Entry(
        slots.index(node),
        keys[source] if source in keys else slots.index(source),
        source in keys,
        columns,
        weights,
    )


def _of_columns(players, name, members, weight):
    """Columns of each player of a stage, and what they weigh."""
    owners = players.consumers[name]
    columns = np.argsort(owners, kind="stable")
    columns = columns[(owners[columns] >= 0) & members[owners[columns]]]
    columns = columns.reshape(members.sum(), -1)
    table = np.zeros((len(members), columns.shape[1]), dtype=np.int64)
    table[members] = columns
    table = torch.from_numpy(table).to(weight.device)
    return table, weight[table]


def _of_weights(players, name, members, weight):
    """The column of each single weight of a stage, and its one weight in a row of 0."""
    rows, columns = np.nonzero(players.weights[name] >= 0)
    owners = players.weights[name][rows, columns]
    own = members[owners]
    rows, columns, owners = (
        torch.from_numpy(x[own]).to(weight.device) for x in (rows, columns, owners)
    )
    table = columns.new_zeros(len(members), 1)
    table[owners, 0] = columns
    weights = weight.new_zeros(len(members), 1, weight.shape[1])
    weights[owners, 0, rows] = weight[columns, rows]
    return table, weights


def _border(graph, behind):
    """Nodes that are read by those of `behind`, or by nobody else, and none of them."""
    result = _result(graph)
    return {
        node
        for node in graph.nodes
        # A constant of the module is read where it is needed.
        if node not in behind
        and node.op != "get_attr"
        and (node is result or behind & node.users.keys())
    }


def _result(graph):
    """The node that a graph gives."""
    return next(node for node in graph.nodes if node.op == "output").args[0]


def _part(rest, behind, keys, slots):
    """The stage that runs some nodes of a graph."""
    border = _border(rest.graph, behind)
    given = [node for node in (*keys, *slots) if node in border]
    copies = _works_in_place(rest)
    graph, kept = fx.Graph(), {}
    inner = {node: graph.placeholder(f"given_{i}") for i, node in enumerate(given)}
    for node in rest.graph.nodes:
        if node in behind or node.op == "get_attr":
            kept[node] = inner[node] = graph.node_copy(node, inner.__getitem__)
            if copies and node in slots:
                # Later nodes may change it, and it is kept as it is here.
                kept[node] = graph.call_method("clone", (inner[node],))
    writes = [i for i, node in enumerate(slots) if node in behind]
    graph.output([inner[_result(rest.graph)], *(kept[slots[i]] for i in writes)])
    return Stage(
        fx.GraphModule(rest, graph),
        [key for node, key in keys.items() if node in border],
        [i for i, node in enumerate(slots) if node in border],
        writes,
    )


def _works_in_place(rest):
    """Whether a traced module may change tensors that it made before."""
    for node in rest.graph.nodes:
        if node.op == "call_module":
            works = any(
                map(_may_work_in_place, rest.get_submodule(node.target).modules())
            )
        else:
            name = getattr(node.target, "__name__", node.target)
            works = name.endswith("_") or name == "setitem"
        if works or node.kwargs.get("inplace"):
            return True
    return False


def _may_work_in_place(layer):
    """Whether a layer says so, or does what nobody knows but who wrote it."""
    known = type(layer).__module__.startswith("torch.nn")
    known |= isinstance(layer, ColumnSelection)
    return not known or getattr(layer, "inplace", False)


def _agrees(divided, features, expected):
    """Whether stages give what the whole gives; measures them on the way."""
    n_players = divided.players.n_players
    keep = (np.random.default_rng(0).random(n_players) < 0.5)[None]
    n_samples, row, seen = len(tensors_in(features)[0]), np.zeros(1, dtype=int), []

    def see(outputs, blocks):
        seen.append(outputs)
        return 0.0

    try:
        outputs, slots = _measure(divided.whole, features, [])
        fits = all(len(slot) == n_samples for slot in slots)
        if not fits or not agree(outputs, expected):
            return False
        divided.slot_bytes = sum(map(_bytes_of_one, slots))
        for number, stage in enumerate(divided.stages):
            _measure(stage, features, slots)
            _measure(stage.for_leavers, features, slots)
            mover = np.flatnonzero(divided.stage_of == number)[:1]
            absent, present = keep.copy(), keep.copy()
            absent[0, mover], present[0, mover] = False, True
            with MaskedModule(divided.rest, divided.players) as masks:
                args = divided, masks, features, row, n_samples, see, BLOCK_SIZE
                one, other = Lineup(*args), Lineup(*args)
                one.start(absent)
                one.play(stage, row, present, mover, store=True)
                other.start(present)
                pairs = [
                    (seen[-1], seen[-2]),
                    *zip(other.slots, one.slots, strict=True),
                ]
                other.play(stage.for_leavers, row, absent, mover)
                pairs.append((seen[0], seen[-1]))
            if not all(agree(*pair) for pair in pairs):
                return False
            seen.clear()
    except (RuntimeError, ValueError, IndexError):
        # A size that was taken from another tensor: the whole is known to run.
        return False
    return True


def _measure(stage, features, slots):
    """Run a stage on copies, and note what its layers and inputs take."""
    sizes = []

    def note(layer, inputs, outputs):
        sizes.extend(map(_bytes_of_one, tensors_in(outputs)))

    leaves = [m for m in stage.module.modules() if not any(True for _ in m.children())]
    handles = [layer.register_forward_hook(note) for layer in leaves]
    given = stage.features_in(features), [slots[i] for i in stage.reads]
    sizes += map(_bytes_of_one, tensors_in(list(given)))
    try:
        with torch.no_grad():
            # Copies: a module may work in place on what it reads.
            result = stage.run(*(map_tensors(torch.clone, x) for x in given))
    finally:
        for handle in handles:
            handle.remove()
    # Thrice: masked copies, and what functions between the layers give.
    stage.bytes_per_sample = max(1, 3 * sum(sizes))
    return result


def _bytes_of_one(tensor):
    """Bytes of one sample of a tensor."""
    return tensor.numel() * tensor.element_size() // max(1, len(tensor))
