"""Run a check: a polars frame in, what was expected and what was seen out. Pass, or name what broke.

Great Expectations has no polars engine; here is the one place where a frame becomes pandas.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

import polars as pl

from data_checks.check import Check

EXAMPLES: Final = 10  # failing rows that a result names at most


@dataclass(frozen=True)
class Expectation:
    """One expectation and what was seen."""

    expectation: str
    """Great Expectations' name of it, e.g. expect_column_values_to_be_unique."""
    column: str
    """The column or columns it is about; empty for the table as a whole."""
    arguments: dict[str, Any]
    severity: str
    """critical or warning."""
    success: bool
    seen: str
    examples: list[str]
    """Ids of failing rows, at most `EXAMPLES`."""
    notes: str


@dataclass(frozen=True)
class CheckResult:
    """All that a check found, in the order of its suite."""

    check: str
    rows: int
    """Of the frame that was looked at."""
    expectations: list[Expectation]

    def failed(self, severity: str) -> list[Expectation]:
        """The expectations of this severity that do not hold."""
        return [found for found in self.expectations if not found.success and found.severity == severity]

    def as_json(self) -> dict[str, Any]:
        """What is stored; the same for the same frame, with no clock and no random id in it."""
        return asdict(self)


def run_check(frame: pl.DataFrame, check: Check) -> CheckResult:
    """Hold `frame` against the check's suite."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(enable=False)
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas(check.name)
    batches = source.add_dataframe_asset(check.name).add_batch_definition_whole_dataframe(check.name)
    # Arrow-backed columns keep nulls null and integers whole.
    batch = batches.get_batch({"dataframe": frame.to_pandas(use_pyarrow_extension_array=True)})
    shape: dict[str, Any] = {"result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES}
    if check.row_id is not None:
        shape["unexpected_index_column_names"] = [check.row_id]
    suite = check.suite()
    order = {_key(entry.configuration.to_json_dict()): place for place, entry in enumerate(suite.expectations)}
    results = [result.to_json_dict() for result in batch.validate(suite, result_format=shape).results]
    results.sort(key=lambda raw: order[_key(raw["expectation_config"])])
    return CheckResult(check.name, frame.height, [_expectation(raw, frame, check.row_id) for raw in results])


def _key(config: dict[str, Any]) -> str:
    """What tells one expectation of a suite from another."""
    arguments = {key: value for key, value in config["kwargs"].items() if key != "batch_id"}
    return json.dumps([config["type"], arguments], sort_keys=True)


def _expectation(raw: dict[str, Any], frame: pl.DataFrame, row_id: str | None) -> Expectation:
    config, result = raw["expectation_config"], raw["result"]
    arguments = {key: value for key, value in config["kwargs"].items() if key != "batch_id"}
    if "row_condition" in arguments:
        condition = arguments["row_condition"]
        arguments["row_condition"] = f"{condition['column']['name']} {condition['operator']} {condition['parameter']}"
    if "column_list" in arguments:
        column = ", ".join(arguments["column_list"])
    else:
        column = ", ".join(arguments[key] for key in ("column", "column_A", "column_B") if key in arguments)
    return Expectation(
        expectation=config["type"],
        column=column,
        arguments=arguments,
        severity=config["severity"],
        success=raw["success"],
        seen=_counted(frame, column) if row_id is None and result else _seen(raw, result),
        examples=[str(row[row_id]) for row in result.get("partial_unexpected_index_list", []) if row_id is not None],
        notes=config.get("notes") or "",
    )


def _counted(frame: pl.DataFrame, column: str) -> str:
    """What stands in the one row of counts."""
    value = frame[0, column]
    if isinstance(value, float):
        return f"{value:.4g}"
    return "does not apply" if value is None else str(value)


def _seen(raw: dict[str, Any], result: dict[str, Any]) -> str:
    if not result:
        messages = [entry["exception_message"] for entry in raw["exception_info"].values() if isinstance(entry, dict)]
        return "an error: " + "; ".join(messages)
    if "unexpected_count" in result:
        said = f"{result['unexpected_count']} of {result['element_count']} rows fail"
        values = [str(value) for value in result["partial_unexpected_list"][:3]]
        return f"{said} ({', '.join(values)})" if values else said
    return str(result.get("observed_value"))
