"""Plots: metrics -> PNG files whose bytes depend on nothing but the numbers (no date, no host, no screen).

Every function draws one picture. Colours are told apart by people who see no red or green (Okabe and Ito 2008), and
every plot says in its title what it shows. matplotlib is imported inside, so that a reused run need not.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, Final

import numpy as np
import polars as pl

from tasks.evaluation.curves import CURVES
from tasks.reports.figures import compared

INK: Final = "#22303c"
FAINT: Final = "#8a97a3"
MODEL: Final = "#0072b2"
BASE: Final = "#e69f00"
WRONG: Final = "#d55e00"

BESIDE: Final = 5.6  # inches; plots that stand in pairs in the report are equally wide
LABEL_WIDTH: Final = 62  # characters under such a plot

_COLOURS: Final = {"model": MODEL, "start": FAINT, "rule": BASE}

Axes = Any  # matplotlib's, which is untyped here

_STYLE: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 9.5,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#e3e8ec",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}  # fmt: skip


def save(path: Path, draw: Callable[[Axes], None], *, width: float = 7.0, height: float = 3.6) -> None:
    """One plot into `path`; width and height in inches, 144 pixels each."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE, "backend": "agg"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.add_subplot())
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=144, metadata={"Software": None})


def draw_evaluation(folder: Path, found: Mapping[str, Any], rows: pl.DataFrame) -> None:
    """Every plot of one evaluation."""
    lines = [(label, line, _COLOURS[kind]) for label, line, kind in compared(found)]
    save(
        folder / "accuracy.png", lambda axes: _accuracy(axes, lines), width=BESIDE, height=0.9 + 0.33 * len(lines)
    )  # fmt: skip
    save(
        folder / "margins.png",
        lambda axes: _margins(axes, rows.get_column("margin").to_numpy(), found["reward"]),
        width=BESIDE,
    )
    save(folder / "calibration.png", lambda axes: _calibration(axes, found["calibration"]), width=BESIDE)
    save(folder / "drift.png", lambda axes: _drift(axes, rows), width=BESIDE)
    for name, bins in found["curves"].items():
        if len(bins) > 1:
            _draw_curve(folder / f"by_{name}.png", name, bins)


def _accuracy(axes: Axes, lines: Sequence[tuple[str, Mapping[str, Any], str]]) -> None:
    positions = np.arange(len(lines))[::-1]
    for position, (_, line, colour) in zip(positions, lines, strict=True):
        value = line["accuracy"]
        if line["low"] is not None:
            axes.plot([line["low"], line["high"]], [position] * 2, color=colour, linewidth=2.4, alpha=0.55,
                      solid_capstyle="round")  # fmt: skip
        axes.plot([value], [position], "o", color=colour, markersize=6.5)
        axes.annotate(f"{value:.1%}", (1.015, position), xycoords=("axes fraction", "data"), va="center")
    axes.axvline(0.5, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set_yticks(positions, [label for label, _, _ in lines])
    axes.set_ylim(-0.6, len(lines) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    percent_axis(axes.xaxis)
    title_over_labels(axes, "Accuracy on held-out pairs (95 % intervals)")


def _margins(axes: Axes, margin: np.ndarray[Any, np.dtype[np.float64]], reward: str) -> None:
    reach = max(1e-6, float(np.quantile(np.abs(margin), 0.995)))
    edges = np.linspace(-reach, reach, 41)
    inside = np.clip(margin, -reach, reach)
    axes.hist(inside[margin <= 0], bins=edges, color=WRONG, label="wrong or tied")
    axes.hist(inside[margin > 0], bins=edges, color=MODEL, label="right")
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_xlabel(f"margin: beta × (chosen {reward}\n− rejected {reward}); the outermost bars hold the rest")
    axes.set_ylabel("pairs")
    axes.grid(axis="y")
    axes.legend(loc="upper left")
    axes.set_title(f"Margins: mean {margin.mean():.3f}, {np.mean(margin > 0):.1%} above 0")


def _calibration(axes: Axes, found: Mapping[str, Any]) -> None:
    bins = found["bins"]
    most = max(one["pairs"] for one in bins)
    axes.plot([0.5, 1], [0.5, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot([one["confidence"] for one in bins], [one["accuracy"] for one in bins], color=MODEL, linewidth=1.4)
    axes.scatter(
        [one["confidence"] for one in bins], [one["accuracy"] for one in bins],
        s=[20 + 160 * one["pairs"] / most for one in bins], color=MODEL, alpha=0.75, linewidths=0,
    )  # fmt: skip
    axes.set_xlim(0.49, 1.01)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("sigmoid(margin) of the preferred answer")
    axes.set_ylabel("share right")
    axes.grid()
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    axes.set_title(f"Calibration: Brier {found['brier']:.3f}, error {found['expected_calibration_error']:.1%}")


def _drift(axes: Axes, rows: pl.DataFrame) -> None:
    changes = [
        ((rows[f"{side}_logps"] - rows[f"ref_{side}_logps"]) / rows[f"{side}_tokens"]).to_numpy()
        for side in ("chosen", "rejected")
    ]
    together = np.concatenate(changes)
    low, high = (float(edge) for edge in np.quantile(together, [0.005, 0.995]))
    room = max(1e-6, 0.05 * (high - low))
    edges = np.linspace(min(low, 0.0) - room, max(high, 0.0) + room, 46)
    for change, colour, label in zip(changes, (MODEL, WRONG), ("chosen", "rejected"), strict=True):
        axes.hist(np.clip(change, edges[0], edges[-1]), bins=edges, histtype="stepfilled", color=colour, alpha=0.5,
                  label=f"{label}: {np.mean(change < 0):.0%} fell")  # fmt: skip
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_xlabel("change of the log-prob since the start, nats a token")
    axes.set_ylabel("answers")
    axes.grid(axis="y")
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper left", ncols=2)
    axes.set_title("Drift: what training did to the held-out answers")


def _draw_curve(path: Path, name: str, bins: Sequence[Mapping[str, Any]]) -> None:
    if name == "site":
        save(path, lambda axes: _sites(axes, bins), height=1.1 + 0.3 * len(bins))
    else:
        save(path, lambda axes: _curve(axes, name, bins), width=BESIDE if len(bins) <= 8 else 9.0)


def _curve(axes: Axes, name: str, bins: Sequence[Mapping[str, Any]]) -> None:
    positions = np.arange(len(bins))
    for position, one in zip(positions, bins, strict=True):
        axes.plot([position] * 2, [one["low"], one["high"]], color=MODEL, linewidth=2.4, alpha=0.55)
    ordered = name not in ("truncation", "posted")
    line = "-" if ordered else ""
    axes.plot(positions, [one["accuracy"] for one in bins], f"o{line}", color=MODEL, label="tuned model", linewidth=1.4)
    axes.plot(positions, [one["longer_accuracy"] for one in bins], f"s{line}", color=BASE, markersize=4.5,
              linewidth=1.2, label="longer answer")  # fmt: skip
    axes.axhline(0.5, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xticks(positions, [f"{one['label']}\n{one['pairs']:,}" for one in bins])
    axes.set_xlim(-0.5, len(bins) - 0.5)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(fill(f"{CURVES[name]}; below it the number of pairs", LABEL_WIDTH))
    axes.grid(axis="y")
    percent_axis(axes.yaxis)
    axes.legend(loc="lower right", ncols=2)
    axes.set_title(f"Accuracy by {_TITLES[name]}")


def _sites(axes: Axes, bins: Sequence[Mapping[str, Any]]) -> None:
    positions = np.arange(len(bins))[::-1]
    for position, one in zip(positions, bins, strict=True):
        axes.plot([one["low"], one["high"]], [position] * 2, color=MODEL, linewidth=2.4, alpha=0.55)
    axes.plot([one["accuracy"] for one in bins], positions, "o", color=MODEL, label="tuned model")
    axes.plot(
        [one["longer_accuracy"] for one in bins], positions, "s", color=BASE, markersize=4.5, label="longer answer"
    )
    axes.axvline(0.5, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set_yticks(positions, [f"{one['label']} ({one['pairs']:,})" for one in bins])
    axes.set_ylim(-0.6, len(bins) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    percent_axis(axes.xaxis)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    title_over_labels(axes, "Accuracy by site (number of pairs)")


_TITLES: Final = {
    "score_gap": "difference in votes",
    "rank_gap": "gap in rank",
    "length_gap": "difference in length",
    "year": "year",
    "truncation": "truncation",
    "code": "share of code",
    "posted": "order of posting",
}


def title_over_labels(axes: Axes, title: str) -> None:
    """A title that begins at the picture's edge, not at that of the axes, which long labels push to the right."""
    axes.figure.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold", color=INK)


def percent_axis(axis: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
