"""Plots of the story: the course of training, and what the training pairs are like. In evaluation/plots.py's style."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from tasks.evaluation.plots import BASE, BESIDE, FAINT, MODEL, WRONG, Axes, percent_axis, save, title_over_labels
from tasks.reports.data_summary import Summary

SITES_SHOWN: Final = 20


def draw_training(folder: Path, training: pl.DataFrame) -> None:
    """Loss, accuracy and margin a step; nothing for a training without steps or without these names."""
    if training.height == 0 or not {"step", "loss", "rewards/accuracies", "rewards/margins"} <= set(training.columns):
        return
    steps = training["step"].to_numpy()
    save(folder / "training_loss.png", lambda axes: _loss(axes, steps, training["loss"]), width=BESIDE, height=3.0)
    save(folder / "training_accuracy.png", lambda axes: _rewards(axes, steps, training), width=BESIDE, height=3.0)


def draw_data(folder: Path, summary: Summary) -> None:
    """Length, vote gap, year and site of the training pairs."""
    if summary.pairs == 0:
        return
    save(folder / "lengths.png", lambda axes: _lengths(axes, summary), width=BESIDE, height=3.2)
    if len(summary.score_gaps) > 1:
        bars = summary.score_gaps
        title = "Training pairs by difference in votes"
        save(folder / "score_gaps.png", lambda axes: _bars(axes, bars, title, "votes of chosen minus rejected"),
             width=BESIDE if len(bars) <= 8 else 7.0, height=3.0)  # fmt: skip
    if len(summary.years) > 1:
        years = [(str(year), pairs) for year, pairs in summary.years]
        save(folder / "years.png", lambda axes: _bars(axes, years, "Training pairs by year of the question", ""),
             width=BESIDE if len(years) <= 9 else 7.0, height=3.0)  # fmt: skip
    if len(summary.sites) > 1:
        shown = summary.sites[:SITES_SHOWN]
        save(folder / "sites.png", lambda axes: _sites(axes, shown), width=BESIDE, height=0.8 + 0.3 * len(shown))


def smoothed(values: pl.Series, window: int) -> pl.Series:
    """The mean over the last `window` steps, over fewer at the beginning."""
    return values.cast(pl.Float64).rolling_mean(window, min_samples=1)


def _loss(axes: Axes, steps: np.ndarray, loss: pl.Series) -> None:
    window = _window(len(loss))
    axes.plot(steps, loss.to_numpy(), color=MODEL, linewidth=0.8, alpha=0.35)
    axes.plot(steps, smoothed(loss, window).to_numpy(), color=MODEL, linewidth=1.8, label=_mean_of(window))
    axes.axhline(np.log(2), color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("ln 2: policy = reference", (steps[0], np.log(2)), xytext=(0, 4), textcoords="offset points",
                  color=FAINT, fontsize=8.5)  # fmt: skip
    axes.set_xlabel("optimizer step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y")
    axes.legend(loc="lower left")
    axes.set_title("Training loss")


def _rewards(axes: Axes, steps: np.ndarray, training: pl.DataFrame) -> None:
    window = _window(training.height)
    right = smoothed(training["rewards/accuracies"], window)
    axes.plot(steps, right.to_numpy(), color=MODEL, linewidth=1.8, label="right (margin above 0)")
    if "rewards/length_baseline_accuracy" in training.columns:
        longer = smoothed(training["rewards/length_baseline_accuracy"], window)
        axes.plot(steps, longer.to_numpy(), color=BASE, linewidth=1.2, label="longer answer")
    axes.axhline(0.5, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("optimizer step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y")
    percent_axis(axes.yaxis)
    axes.legend(loc="lower right", ncols=2)
    axes.set_title(f"Accuracy on the training pairs, {_mean_of(window)}")


def _window(steps: int) -> int:
    return max(1, min(50, steps // 10))


def _mean_of(window: int) -> str:
    return "each step" if window == 1 else f"mean of {window} steps"


def _lengths(axes: Axes, summary: Summary) -> None:
    unit = "characters" if summary.tokens is None else "tokens"
    lengths = summary.characters if summary.tokens is None else summary.tokens
    chosen, rejected = (lengths[side].to_numpy() for side in ("chosen", "rejected"))
    most = float(np.quantile(np.concatenate([chosen, rejected]), 0.99))
    edges = np.linspace(0, max(10.0, most), 46)
    for each, colour, label in ((chosen, MODEL, "chosen"), (rejected, WRONG, "rejected")):
        axes.hist(
            np.clip(each, 0, edges[-1]), bins=edges, histtype="stepfilled", linewidth=1.4, edgecolor=colour,
            facecolor=(colour, 0.18), label=f"{label}: median {np.median(each):,.0f}",
        )  # fmt: skip
    trained = " as trained" if unit == "tokens" else ""
    axes.set_xlabel(f"{unit} of the answer{trained}; the last bar holds the longest 1 %")
    axes.set_ylabel("answers")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y")
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper right")
    longer = float(np.mean(chosen > rejected))
    axes.set_title(f"Length: chosen is longer in {longer:.1%} of pairs")


def _bars(axes: Axes, bars: Sequence[tuple[str, int]], title: str, label: str) -> None:
    positions = np.arange(len(bars))
    drawn = axes.bar(positions, [count for _, count in bars], color=MODEL, width=0.72)
    axes.bar_label(drawn, [f"{count:,}" for _, count in bars], padding=2, fontsize=8)
    axes.set_xticks(positions, [name for name, _ in bars])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("pairs")
    axes.set_xlabel(label)
    axes.grid(axis="y")
    axes.margins(y=0.12)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_title(title)


def _sites(axes: Axes, sites: Sequence[tuple[str, int]]) -> None:
    positions = np.arange(len(sites))[::-1]
    drawn = axes.barh(positions, [count for _, count in sites], color=MODEL, height=0.68)
    axes.bar_label(drawn, [f"{count:,}" for _, count in sites], padding=3, fontsize=8.5)
    axes.set_yticks(positions, [name for name, _ in sites])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.margins(x=0.1)
    title_over_labels(axes, "Training pairs by site")
