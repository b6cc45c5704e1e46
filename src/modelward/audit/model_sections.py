"""Sections about the model itself: intake, clean accuracy, evasion, everyday changes, cost."""

from __future__ import annotations

import collections
from typing import Any

import torch

from modelward.attacks.evasion.flags import FLAGS, black_box_wins
from modelward.audit.plan import WORDS, Plan
from modelward.audit.question import Ground
from modelward.audit.scope import Attack
from modelward.audit.section import percent, rows_of, section
from modelward.evaluation.engine import Run
from modelward.evaluation.store import Store
from modelward.evaluation.work_corruption import UNITS
from modelward.statistics import wilson

NAMES = {"pgd": "PGD, 20 steps", "fgsm": "FGSM, one step", "noise": "random noise of equal norm"}
ROLES = {"pgd": "main", "fgsm": "attack", "noise": "control"}
USUAL = "linf 8/255"
ERASING = {"linf": 0.5, "l2": 16.0}


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
    rows = {key: rows_of(run, cell) for key, cell in plan.curves.items()}
    every = [row for part in rows.values() for row in part]
    signs, checks = masking_checks(ground, plan, run)
    lead, weak = _evasion_lead(every)
    if not every:
        return section("evasion", "Evasion", "not tested", lead, checks=checks)
    norms = dict.fromkeys(attack.norm for attack in plan.scope.attacks)
    return section(
        "evasion", "Evasion: small changes made to deceive", "flagged" if weak or signs else "passed", lead, rows=every, checks=checks,
        plots=[plot for norm in norms if (plot := _eps_plot(plan, rows, norm))], flags=sorted({flag for row in every for flag in row["flags"]}),
        not_tested=["Other attacks than those named here: AutoAttack, query-only attacks, patches.",
                    "Changes that nobody would notice but that are not small in these norms.",
                    "An attack that knows more about this model than its gradients."],
    )  # fmt: skip


def _evasion_lead(rows: list[dict[str, Any]]) -> tuple[str, bool]:
    """Return the section in one sentence, and whether changes made on purpose do far more than noise does."""
    attacks = [row for row in rows if row["attack"] != "noise"]
    if not attacks:
        return "Evasion was not measured.", False
    usual = [row for row in attacks if row["attack"] == "pgd" and row["budget"] == USUAL]
    row = usual[0] if usual else min(attacks, key=lambda found: found["value"])
    noise = next((other for other in rows if other["attack"] == "noise" and other["budget"] == row["budget"]), None)
    what = "Changes of at most 8 grey levels of 255 leave" if usual else f"{row['attack']} at {row['budget']} leaves"
    control = f"; random noise of the same size leaves {percent(noise)}" if noise else ""
    lead = f"{what} {percent(row)} of {row['n']} images correctly classified{control}."
    return lead, noise is not None and row["value"] < 0.5 * noise["value"]


def _eps_plot(plan: Plan, rows: dict[str, list[dict[str, Any]]], norm: str) -> dict[str, Any] | None:
    """Return accuracy over eps, one series per attack, the last (sanity) eps of the usual ones left out."""
    series = []
    for key, attack in plan.scope.curves().items():
        line = sorted(rows[key], key=lambda r: r["extra"]["eps"]) if attack.norm == norm else []
        line = line[:-1] if len(line) > 1 and _covers_all(attack) else line
        if line:
            start = wilson(line[0]["extra"]["unchanged"], line[0]["n"])
            series.append({
                "name": NAMES.get(key.removesuffix(f" {norm}"), key), "role": ROLES.get(attack.method, "attack"),
                "x": [0.0, *(r["extra"]["eps"] * (255 if norm == "linf" else 1) for r in line)],
                "y": [start.value, *(r["value"] for r in line)], "low": [start.low, *(r["ci_low"] for r in line)],
                "high": [start.high, *(r["ci_high"] for r in line)],
            })  # fmt: skip
    if not series:
        return None
    units = {"linf": "grey levels of 255", "l2": "Euclidean norm, pixels in [0, 1]"}
    return {
        "kind": "curve", "title": f"Accuracy over eps, {norm.capitalize()}", "x_label": f"eps ({units.get(norm, 'pixels in [0, 1]')})",
        "y_label": "accuracy", "series": series, "note": "Bands are 95 % Wilson intervals; images rounded to 8 bits after the attack.",
    }  # fmt: skip


def _covers_all(attack: Attack) -> bool:
    """Return whether the largest radius can erase any image: a check of the attack itself."""
    return attack.eps[-1] >= ERASING.get(attack.norm, float("inf"))


def masking_checks(ground: Ground, plan: Plan, run: Run) -> tuple[list[str], list[dict[str, str]]]:
    """Return the signs of masked gradients that hold, and all of them as checks."""
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
    for key, attack in plan.scope.curves().items():
        far = rows_of(run, plan.curves[key])[-1:]
        if attack.method == "pgd" and _covers_all(attack) and far and far[0]["value"] > 0.1:
            name, text = f"large eps {attack.norm}", f"{percent(far[0])} at {far[0]['budget']}"
            found[name] = "a change that can erase the image leaves accuracy: the attack is not working"
            checks.append({"name": name, "status": "flagged", "text": text, "fix": "gradients mislead: use another loss"})
    return list(found), checks


def _weaker_attack_wins(plan: Plan, run: Run) -> str | None:
    """Return the evidence that noise or one step beats the iterated attack somewhere, the radius that erases images left out."""
    curves = plan.scope.curves()
    pairs = [
        ((key, attack), (other, weaker))
        for key, attack in curves.items() for other, weaker in curves.items()
        if attack.method == "pgd" and weaker.method in {"fgsm", "noise"} and weaker.norm == attack.norm
    ]  # fmt: skip
    for (key, attack), (other, weaker) in pairs:
        strong, weak = _robust(plan, run, key), _robust(plan, run, other)
        if strong is None or weak is None:
            continue
        radii = attack.eps[:-1] if _covers_all(attack) else attack.eps
        for i, eps in enumerate(radii):
            text = black_box_wins(strong[i], weak[weaker.eps.index(eps)]) if eps in weaker.eps else None
            if text:
                return f"{NAMES[weaker.method]} at {attack.norm} {eps:.3f}: {text}"
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
    lead, loss = _corruption_lead([row for part in rows.values() for row in part])
    if loss is None:
        return section("corruption", "Everyday changes", "not tested", lead)
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
        not_tested=[f"Other corruptions than {', '.join(plan.corruptions)}: weather, motion, geometry.",
                    f"Images from other cameras than those of {ground.splits.name}."],
    )  # fmt: skip


def _corruption_lead(rows: list[dict[str, Any]]) -> tuple[str, float | None]:
    """Return the section in one sentence, and the accuracy lost: at JPEG quality 50, else at the worst of what was tried."""
    if not rows:
        return "Everyday changes were not measured.", None
    jpeg = next((row for row in rows if row["attack"] == "jpeg" and row["extra"]["level"] == 50), None)
    row = jpeg or min(rows, key=lambda found: found["value"])
    before = row["extra"]["unchanged"] / row["n"]
    loss = before - row["value"]
    what = "JPEG at quality 50" if jpeg else f"{row['attack']} at {row['budget']}"
    change = f"costs {loss * 100:.1f} points" if loss > 0 else "costs nothing"
    return f"{what} {change}: {percent(row)} of {row['n']} images are classified correctly, {before * 100:.1f} % of them before.", loss


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
