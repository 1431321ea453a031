"""Gate: a manifest passes, or the run stops.

in   the folder of the stage that is judged
out  validation.json   each expectation, what was seen, and the ids of some rows that fail

What was found is a stage folder like any other: a second run reads it, and does not import Great Expectations. The same
holds for a gate that failed, until what it judged comes out different; a waiver is read beside it.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from data_checks.check import Check, named
from data_checks.run import CheckResult, run_check
from tasks.errors import GateFailed
from tasks.folders import write_text
from tasks.manifest import Manifest
from tasks.store import Store, Workspace

VERSION = 1  # bump when the bytes this stage writes would change; a check has a version of its own


def gate(store: Store, subject: Manifest, check: Check) -> Manifest:
    """What the check found in `subject`: counts `expectations`, `failed_critical`, `failed_warning`.

    Raises GateFailed where a critical expectation does not hold and is not waived.
    """
    found = _found(store, subject, check)
    if found.planned:
        return found
    stage = subject.stage
    if found.counts["failed_critical"]:
        failed = _failed(stored_result(store, subject, check), "critical")
        if stopping := [entry for entry in failed if "waived" not in entry]:
            names = ", ".join(dict.fromkeys(f"{check.name}.{_name(entry)}" for entry in stopping))
            raise GateFailed(
                f"the gate after {stage} ({subject.folder.name}) failed: {_failures(stopping)}; a reason in "
                f"gates.waive would let it pass ({names})"
            )
        for entry in failed:
            said = f"{check.name}.{_name(entry)} is waived ({entry['waived']})"
            store.report.message(found.stage, f"the gate after {stage} lets pass: {said}: {_failure(entry)}")
    if found.counts["failed_warning"] and not found.reused:
        warnings = _failures(_failed(stored_result(store, subject, check), "warning"))
        store.report.message(found.stage, f"the gate after {stage} lets pass, but: {warnings}")
    return found


def stored_result(store: Store, subject: Manifest, check: Check) -> dict[str, Any]:
    """What the gate wrote down about `subject`, as `CheckResult.as_json` gave it.

    A critical expectation that failed and is waived has the reason beside it, as `waived`: that is not stored, so that
    giving one changes no file.
    """
    found = _found(replace(store, plan=True), subject, check)
    result: dict[str, Any] = json.loads(found.path("validation.json").read_text(encoding="utf-8"))
    for entry in _failed(result, "critical"):
        if _name(entry) in check.waived:
            entry["waived"] = check.waived[_name(entry)]
    return result


def _found(store: Store, subject: Manifest, check: Check) -> Manifest:
    def build(work: Workspace) -> dict[str, int]:
        result = _with_examples(run_check(check.frame(subject.folder), check), subject, check)
        write_text(work.folder / "validation.json", json.dumps(result.as_json(), indent=1, ensure_ascii=False) + "\n")
        return {
            "expectations": len(result.expectations),
            "failed_critical": len(result.failed("critical")),
            "failed_warning": len(result.failed("warning")),
        }

    identity = {"check": check.version, **check.config}
    return store.stage(f"gate-{check.name}", VERSION, identity, {"subject": subject}, build)


def _with_examples(result: CheckResult, subject: Manifest, check: Check) -> CheckResult:
    """`result` with the ids of rows behind each count that is too high; a frame of counts has none itself."""
    find = check.examples
    if find is None:
        return result
    return replace(
        result,
        expectations=[
            found if found.success else replace(found, examples=find(subject.folder, found.column))
            for found in result.expectations
        ],
    )


def _failed(result: dict[str, Any], severity: str) -> list[dict[str, Any]]:
    """The entries of expectations of this severity that do not hold."""
    return [entry for entry in result["expectations"] if not entry["success"] and entry["severity"] == severity]


def _name(entry: dict[str, Any]) -> str:
    return named(entry["expectation"], entry["column"])


def _failures(failed: Sequence[dict[str, Any]]) -> str:
    """The failed expectations: name, column, what was seen, ids of some rows, why it matters."""
    return "; ".join(_failure(entry) for entry in failed)


def _failure(entry: dict[str, Any]) -> str:
    said = str(entry["expectation"])
    if entry["column"]:
        said += f" ({entry['column']})"
    bounds = {key: value for key, value in entry["arguments"].items() if not key.startswith("column")}
    if bounds:
        said += " " + ", ".join(f"{key}={value}" for key, value in bounds.items())
    said += f" saw {entry['seen']}"
    if entry["examples"]:
        said += f", for instance {', '.join(entry['examples'][:5])}"
    return said + (f" [{entry['notes'].rstrip('.')}]" if entry["notes"] else "")
