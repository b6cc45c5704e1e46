"""Every file format that modelward reads: answers, plans and what modelward keeps stand here, the others are gathered."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hostile_format import CONTENT, FILE, NAMES, PIXELS, Format
from hostile_models import graphs_files, keys_files, models_files
from hostile_sets import images_files, set_files

from modelward.audit.plan_file import with_plan
from modelward.audit.question import Question
from modelward.core.errors import FormatError
from modelward.data import stored
from modelward.evaluation.cell import Cell, Outcome
from modelward.evaluation.store import Store
from modelward.io import (
    answers,
    endpoint,
    endpoint_headers,
    endpoint_http,
    endpoint_state,
)
from modelward.io import safetensors as st
from modelward.io.sniff import kind_of
from modelward.io.tables import read_answers_csv


def answers_files(room: Path) -> dict[str, Format]:
    """Answers of suspects, as tables, as replies, as the state of an interrupted run; graphs that answer."""
    tables = (
        b"file,label\na.png,0\nb.png,1\nc.png,1\n", b"file,p0,p1\na.png,0.25,0.75\nb.png,1,0\nc.png,.5,.5\n",
        b'file,label1,p1,label2,p2\r\n"a.png",0,0.9,1,0.1\r\nb.png,1,1,,\r\nc.png,0,1e-3,1,.99\r\n',
    )  # fmt: skip
    replies = (b'{"predictions": [[0.9, 0.1], [2, -1], [0, 1]]}', b'["cat", 1, 0]', b'{"labels": [0, 1, 1], "id": {"a": null}}')

    def reply(path: Path) -> Any:
        asked = endpoint.Endpoint("https://models.example/v1", ("cat", "dog"), endpoint.Asking(repeats=0, retries=0))
        state = endpoint_state.State.empty(3)
        state.put(state.missing(), answers.of_rows(asked._rows(endpoint_http.Reply(200, path.read_bytes())), 3, ("cat", "dog"), asked.name))  # noqa: SLF001
        found = state.answers()
        return answers.described(found.probabilities).notes if found.probabilities is not None else found.notes

    state = endpoint_state.State.load(room / "s.mw", PIXELS, "https://models.example/v1 json")
    state.put(np.arange(4), answers.Answers(probabilities=np.full((4, 2), 0.5, np.float32)))
    state.put_again(np.arange(2), answers.Answers(probabilities=np.full((2, 2), 0.5, np.float32)))
    resumed = (room / "s.mw").read_bytes()

    def resume(path: Path) -> Any:
        found = endpoint_state.State.load(path, PIXELS, "https://models.example/v1 json")
        return found.done, found.table, found.again, found.sent

    return {
        "answers.csv": Format(lambda path: read_answers_csv(path, NAMES, 2), tables, room / "a.csv", "text", share=2),
        "service reply, JSON": Format(reply, replies, room / "r.json", "json", share=1.5),
        "service state (--resume)": Format(resume, (resumed,), room / "s.mw", "safetensors", share=1.5, covers=FILE),
        "header file": Format(endpoint_headers.read_headers, (b"# mine\nAuthorization: Bearer 12\nX-Id: 7\n",), room / "h", "text", share=0.4),
        **graphs_files(room),
    }  # fmt: skip


def places_files(room: Path) -> dict[str, Format]:
    """Make what modelward itself keeps, the store and decoded pixels, and the plan of an audit."""
    store = Store(room / "store")
    digest = store.put({"a": np.arange(9), "b": np.ones((2, 2), np.float32)}, {"name": "x", "classes": "[]"})
    other = st.dump_arrays({"a": np.arange(9)}, {"name": "y"})
    cell = Cell("modelward.evaluation.cell:nothing", {"eps": 0.1}, seed=0, label="label", threads=1, precision="float32")
    store.finish(cell, Outcome([{"metric": "acc", "value": 0.5}]), digest, 1.0)
    database = room / "store/cells.sqlite"

    row = [json.dumps([{"metric": "acc", "value": 0.5}]), digest, 1.0, "2026-01-01T00:00:00+00:00", "label"]
    base = database.read_bytes()

    def cells(path: Path) -> Any:
        opened = Store(path.parent)
        return opened.find(cell.key), list(opened.listing()), opened.count()

    def odd_cells(path: Path) -> Any:
        place = path.parent / "cells.sqlite"
        place.write_bytes(base)
        with contextlib.closing(sqlite3.connect(place)) as connection, connection:
            try:
                values = json.loads(path.read_bytes())
                connection.execute("UPDATE cells SET rows = ?, artifact = ?, seconds = ?, finished = ?, label = ?", values)
            except (sqlite3.Error, TypeError, ValueError, OverflowError, RecursionError) as error:
                raise FormatError("such a row cannot be written") from error
        return cells(place)

    kept = room / "pixels.safetensors"
    stored.keep(kept, torch.from_numpy(PIXELS), torch.full((6,), 3, dtype=torch.uint8))

    def pixels(path: Path) -> Any:
        found = stored.recall(path, 6)
        if found is None:
            raise FormatError("it counts as absent")
        return found

    plan = (
        b"version: 1\ndata: fashion-mini\nprofile: smoke\nseed: 3\nsize: [28, 28]\nimages: 32\nevasion:\n  - {method: pgd, norm: l2, eps: [1/2, 0.25], "
        b'settings: {steps: 5}}\ncorruptions: [jpeg]\ntheft:\n  - {method: extract-l, copies: 2}\nownership: []\nfail_if: ["robust_acc[l2 0.5] < .4"]\n'
    )
    return {
        "store blob": Format(
            lambda path: Store(path.parents[2]).get(digest), (store.path(digest).read_bytes(),), store.path(digest), "safetensors", (other,), 1.5, covers=FILE
        ),
        "store database": Format(cells, (base,), room / "cells/cells.sqlite", share=0.7),
        "store database, odd rows": Format(odd_cells, (json.dumps(row).encode(),), room / "rows/row.json", "tree", share=0.5),
        "decoded pixels": Format(pixels, (kept.read_bytes(),), kept, "safetensors", covers=CONTENT),
        "plan, YAML": Format(lambda path: with_plan(Question(), path), (plan,), room / "plan.yaml", "text", share=1.5),
    }  # fmt: skip


def formats(room: Path) -> dict[str, Format]:
    """Return every format by name; its files are made in the folder ``room``."""
    found: dict[str, Format] = {}
    for index, part in enumerate((models_files, keys_files, images_files, set_files, answers_files, places_files)):
        place = room / str(index)
        place.mkdir()
        found |= part(place)
    everything = tuple(seed for made in found.values() for seed in made.seeds)
    found["first bytes (sniffing)"] = Format(kind_of, everything, room / "any", "zip", share=0.7)
    return found
