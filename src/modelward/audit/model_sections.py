"""Sections about the model itself: intake, clean accuracy, evasion, everyday changes, cost."""

from __future__ import annotations

import collections
from typing import Any

import torch

from modelward.attacks.evasion.flags import FLAGS, black_box_wins
from modelward.audit.plan import ATTACKS, EPS, WORDS, Plan
from modelward.audit.question import Ground
from modelward.audit.section import percent, rows_of, section
from modelward.evaluation.engine import Run
from modelward.evaluation.store import Store
from modelward.evaluation.work_corruption import LEVELS, UNITS
from modelward.statistics import wilson

NAMES = {"pgd": "PGD, 20 steps", "fgsm": "FGSM, one step", "noise": "random noise of equal norm"}
ROLES = {"pgd": "main", "fgsm": "attack", "noise": "control"}
USUAL = {"linf": "linf 8/255", "l2": "l2 0.5"}


def intake_section(ground: Ground, plan: Plan, run: Run) -> dict[str, Any]:
    """Say whether the model was handed over in working order."""
    rows = rows_of(run, plan.single["intake"])
    checks = rows[0]["extra"]["checks"] if rows else []
    bad = [check["name"] for check in checks if check["status"] in {"failed", "flagged"}]
    status = "failed" if any(c["status"] == "failed" for c in checks) else "flagged" if bad else "passed"
    lead = f"Intake: {', '.join(bad)} need attention." if bad else "The model was handed over in working order."
    checks += [
        {"name": "provenance", "status": "flagged", "text": note, "fix": "save the model with modelward, or pass --trained-on"}
        for note in ground.notes
    ]
    return section(
        "intake", "Intake checks", status if rows else "not tested", lead, rows=[], checks=checks,
        not_tested=["Preprocessing that happens outside the model file: resizing, cropping, colour conversion.",
                    "Hidden behaviour on inputs unlike the test images, such as backdoors."],
    )  # fmt: skip


def clean_section(ground: Ground, plan: Plan, run: Run) -> dict[str, Any]:
    """Say how good it is, and whether it knows when it is unsure."""
    rows = rows_of(run, plan.single["clean"])
    if not rows:
        return section(
            "clean", "Clean accuracy", "not tested", f"Clean accuracy could not be measured: {run.failed.get(plan.single['clean'].key)}."
        )
    accuracy, calibration = rows[0], rows[1]
    ece = calibration["value"]
    lead = (
        f"It classifies {percent(accuracy)} of {accuracy['n']} unseen images correctly; its confidence is off by {ece * 100:.1f} points on average"
        f"{', which is too confident or too cautious to be trusted as a probability' if ece > 0.1 else ''}."
    )
    shown = [row for row in rows if row["metric"] != "worst_samples"]
    worst = [{"caption": item["caption"], "images": [{"label": "image", "png": item["png"]}]} for item in rows[-1]["extra"]["items"]]
    bins = calibration["extra"].pop("bins")
    plots = [
        {"kind": "reliability", "title": "Confidence against accuracy", "bins": bins, "ece": ece},
        {"kind": "gallery", "title": "Most confident errors", "items": worst},
    ]  # fmt: skip
    return section(
        "clean", "Clean accuracy and calibration", "flagged" if ece > 0.1 else "passed", lead, rows=shown, plots=plots,
        not_tested=[f"Images from other sources than {ground.splits.name}.", "Fairness between groups of people: the data carries no such labels."],
    )  # fmt: skip


def evasion_section(ground: Ground, plan: Plan, run: Run) -> dict[str, Any]:
    """Say how small a change of the image makes it err."""
    rows = [row for key in plan.curves for row in rows_of(run, plan.curves[key])]
    signs, checks = masking_checks(ground, plan, run)
    usual = {norm: [r for r in rows if r["attack"] == "pgd" and r["budget"] == budget] for norm, budget in USUAL.items()}
    noise = [r for r in rows if r["attack"] == "noise" and r["budget"] == USUAL["linf"]]
    if not usual["linf"] or not noise:
        return section("evasion", "Evasion", "not tested", "Evasion could not be measured.", checks=checks, rows=rows)
    lead = (
        f"Changes of at most 8 grey levels of 255 leave {percent(usual['linf'][0])} of {usual['linf'][0]['n']} images correctly classified; "
        f"random noise of the same size leaves {percent(noise[0])}."
    )
    weak = usual["linf"][0]["value"] < 0.5 * noise[0]["value"]
    return section(
        "evasion", "Evasion: small changes made to deceive", "flagged" if weak or signs else "passed", lead, rows=rows, checks=checks,
        plots=[_eps_plot(rows, norm) for norm in EPS], flags=sorted({flag for row in rows for flag in row["flags"]}),
        not_tested=["Stronger attacks: AutoAttack, Carlini-Wagner, query-only attacks, patches.",
                    "Changes that nobody would notice but that are not small in these norms.",
                    "An attack that knows more about this model than its gradients."],
    )  # fmt: skip


def _eps_plot(rows: list[dict[str, Any]], norm: str) -> dict[str, Any]:
    """Return accuracy over eps, one series per attack, the last (sanity) eps left out."""
    series = []
    for name, _, _ in ATTACKS:
        line = sorted((r for r in rows if r["attack"] == name and r["extra"]["norm"] == norm), key=lambda r: r["extra"]["eps"])[:-1]
        if line:
            start = wilson(line[0]["extra"]["unchanged"], line[0]["n"])
            series.append({
                "name": NAMES[name], "role": ROLES[name], "x": [0.0, *(r["extra"]["eps"] * (255 if norm == "linf" else 1) for r in line)],
                "y": [start.value, *(r["value"] for r in line)], "low": [start.low, *(r["ci_low"] for r in line)],
                "high": [start.high, *(r["ci_high"] for r in line)],
            })  # fmt: skip
    unit = "grey levels of 255" if norm == "linf" else "Euclidean norm, pixels in [0, 1]"
    return {
        "kind": "curve", "title": f"Accuracy over eps, {'Linf' if norm == 'linf' else 'L2'}", "x_label": f"eps ({unit})", "y_label": "accuracy",
        "series": series, "note": "Bands are 95 % Wilson intervals; images rounded to 8 bits after the attack.",
    }  # fmt: skip


def masking_checks(ground: Ground, plan: Plan, run: Run) -> tuple[list[str], list[dict[str, str]]]:
    """Return the signs of masked gradients that hold, and all five as checks."""
    del ground
    rows = rows_of(run, plan.single["signs"])
    found: dict[str, str] = dict(rows[0]["extra"]["found"]) if rows else {}
    won = _weaker_attack_wins(plan, run)
    if won:
        found["black-box-wins"] = won
    checks = [
        {"name": name, "status": "flagged" if name in found else "passed", "text": found.get(name, "no sign of it"), "fix": fix if name in found else ""}
        for name, fix in FLAGS.items()
    ]  # fmt: skip
    for norm in EPS:
        far = rows_of(run, plan.curves[f"pgd {norm}"])[-1:]
        if far and far[0]["value"] > 0.1:
            found[f"large eps {norm}"] = "a change that can erase the image leaves accuracy: the attack is not working"
            checks.append(
                {
                    "name": f"large eps {norm}",
                    "status": "flagged",
                    "text": f"{percent(far[0])} at {far[0]['budget']}",
                    "fix": "gradients mislead: use another loss",
                }
            )
    return list(found), checks


def _weaker_attack_wins(plan: Plan, run: Run) -> str | None:
    """Return the evidence that noise or one step beats the iterated attack somewhere."""
    for norm in EPS:
        arrays = {name: _robust(plan, run, f"{name} {norm}") for name, _, _ in ATTACKS}
        strong = arrays.pop("pgd")
        for name, weak in arrays.items():
            if strong is not None and weak is not None:
                for i, eps in enumerate(EPS[norm][:-1]):
                    found = black_box_wins(strong[i], weak[i])
                    if found:
                        return f"{NAMES[name]} at {norm} {eps:.3f}: {found}"
    return None


def _robust(plan: Plan, run: Run, key: str) -> torch.Tensor | None:
    """Return the per-sample results of a curve, bool (eps, images)."""
    finished = run.of(plan.curves[key])
    if finished is None or finished.artifact is None or not run.store:
        return None
    return torch.from_numpy(Store(run.store).get(finished.artifact)[0]["robust_float"])


def corruption_section(ground: Ground, plan: Plan, run: Run) -> dict[str, Any]:
    """Say whether it survives what platforms and cameras do to images."""
    rows = {kind: rows_of(run, cell) for kind, cell in plan.corruptions.items()}
    jpeg = next((r for r in rows["jpeg"] if r["extra"]["level"] == 50), None)
    if jpeg is None:
        return section("corruption", "Everyday changes", "not tested", "Everyday changes could not be measured.")
    loss = jpeg["extra"]["unchanged"] / jpeg["n"] - jpeg["value"]
    before = jpeg["extra"]["unchanged"] / jpeg["n"]
    change = f"costs {loss * 100:.1f} points" if loss > 0 else "costs nothing"
    lead = (
        f"JPEG at quality 50 {change}: {percent(jpeg)} of {jpeg['n']} images are classified correctly, {before * 100:.1f} % of them before."
    )
    plots = [
        {
            "kind": "curve", "title": f"Accuracy under {kind}", "x_label": UNITS[kind], "y_label": "accuracy",
            "series": [{"name": kind, "role": "main", "x": [r["extra"]["level"] for r in part], "y": [r["value"] for r in part],
                        "low": [r["ci_low"] for r in part], "high": [r["ci_high"] for r in part]}],
        }
        for kind, part in rows.items() if part
    ]  # fmt: skip
    return section(
        "corruption", "Everyday changes: recompression, noise, blur", "flagged" if loss > 0.1 else "passed", lead,
        rows=[row for part in rows.values() for row in part], plots=plots,
        not_tested=[f"Other corruptions than {', '.join(LEVELS)}: weather, motion, geometry.",
                    f"Images from other cameras than those of {ground.splits.name}."],
    )  # fmt: skip


def cost_section(plan: Plan, run: Run, seconds: float) -> dict[str, Any]:
    """Say what it took."""
    kinds: dict[str, list[float]] = collections.defaultdict(list)
    for cell in plan.cells():
        finished = run.of(cell)
        if finished:
            kinds[WORDS.get(cell.work.rpartition(".")[2], cell.work)].append(finished.seconds)
    rows: list[dict[str, Any]] = [
        {"metric": "seconds", "value": sum(times), "n": len(times), "ci_low": None, "ci_high": None, "unit": "s", "method": kind, "variant": "", "profile": "",
         "attack": "", "budget": f"{len(times)} cells", "model": "", "data": "", "seed": 0, "threads": 1, "precision": "fp32", "seconds": sum(times),
         "flags": [], "command": "", "extra": {}}
        for kind, times in sorted(kinds.items(), key=lambda item: -sum(item[1]))
    ]  # fmt: skip
    total = sum(sum(times) for times in kinds.values())
    cached = sum(f.cached for f in run.finished.values())
    count = sum(len(times) for times in kinds.values())
    lead = f"{count} cells took {total:.0f} s of one core; this run took {seconds:.0f} s and read {cached} of them from the store."
    failures = [f"{message}" for message in dict.fromkeys(run.failed.values())]
    return section("cost", "Cost", "info", lead, rows=rows, flags=failures, not_tested=["Energy and money."])
