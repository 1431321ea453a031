"""The pairs as a data set for other trainers: TRL's conversational form, with a card of its own.

out  train.parquet, held_out.parquet   EXPORT_SCHEMA, one row a pair, in the order of the sample
     attribution.csv                   one row a post of either split, as the licence of the texts asks for
     README.md                         the card: splits, columns, licences

`datasets.load_dataset(FOLDER)` reads it without a network, and TRL's DPOTrainer takes the rows as they are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl
import yaml

from tasks.folders import write_text
from tasks.ordered import batches
from tasks.pairing.licences import hub_licenses
from tasks.publication.attribution import licenses, posts_used, write_attribution
from tasks.reports.escaping import as_markdown
from tasks.reports.figures import markdown_table, number

_MESSAGES: Final = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
EXPORT_SCHEMA: Final = pl.Schema(
    {
        "pair_id": pl.String(),
        "prompt": _MESSAGES,  # one message, of the user
        "chosen": _MESSAGES,  # one message, of the assistant
        "rejected": _MESSAGES,
    }
)


def export_pairs(splits: Mapping[str, tuple[Path, pl.Series]], name: str, folder: Path) -> dict[str, int]:
    """Write each split (its pairs, and the ids of those that were used), attribution and card; rows by split.

    A split without a row gets no file, since readers take an empty one for a broken one.
    """
    folder.mkdir()
    counts = {}
    scans = []
    for split, (pairs, used) in splits.items():
        counts[split] = len(used)
        scans.append(pl.scan_parquet(pairs).join(used.to_frame("pair_id").lazy(), on="pair_id", how="semi"))
        if len(used):
            write_split(pairs, used, folder / f"{split}.parquet")
    posts = posts_used(pl.concat(scans, how="diagonal"))
    write_attribution(posts, folder / "attribution.csv")
    write_text(folder / "README.md", card(name, counts, posts))
    return counts


def write_split(pairs: Path, used: pl.Series, target: Path) -> None:
    """The pairs whose id is among `used`, read and written a batch at a time: equal rows give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    schema = pa.schema([("pair_id", pa.string()), *((side, messages) for side in ("prompt", "chosen", "rejected"))])
    ids = used.to_frame("pair_id")
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in batches(pairs, ["pair_id", "prompt", "chosen", "rejected"]):
            kept = conversational(batch.join(ids, on="pair_id", how="semi", maintain_order="left"))
            if kept.height:
                writer.write_table(kept.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema))


def conversational(pairs: pl.DataFrame) -> pl.DataFrame:
    """Pairs (tasks/pairs.py) as EXPORT_SCHEMA."""

    def message(role: str, column: str) -> pl.Expr:
        return pl.concat_list(pl.struct(role=pl.lit(role), content=pl.col(column))).alias(column)

    return pairs.select(
        "pair_id", message("user", "prompt"), message("assistant", "chosen"), message("assistant", "rejected")
    )


def card(name: str, counts: Mapping[str, int], posts: pl.DataFrame) -> str:
    """README.md of the data set."""
    by_license = licenses(posts).rows()
    files = [{"split": split, "path": f"{split}.parquet"} for split, rows in counts.items() if rows]
    metadata: dict[str, Any] = {
        "license": hub_licenses(one for one, _, _ in by_license),
        "task_categories": ["text-generation"],
        "tags": ["dpo", "preference", "trl", "stack-exchange", "prefstack"],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    dumped: str = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=1000)
    splits = markdown_table(("split", "pairs"), [(split, number(rows)) for split, rows in counts.items()])
    named = ", ".join(f"{number(count)} {as_markdown(one)} ({basis})" for one, basis, count in by_license)
    return f"""---
{dumped}---

# Preference pairs of {as_markdown(name)}

Two answers to one Stack Exchange question, of which people voted one up: the pairs that the model was trained on, and
those that it was judged by and never saw. Whole texts: what training cut at its length limit is not cut here.

{splits}
| column | what it is |
|---|---|
| `pair_id` | SITE/QUESTION/CHOSEN/REJECTED, or the source's name and a digest where it has no ids |
| `prompt` | one message of the user: the question, in Markdown |
| `chosen`, `rejected` | one message of the assistant each: the two answers |

```python
from datasets import load_dataset

pairs = load_dataset("path/of/this/folder")  # DPOTrainer of TRL takes it as it is
```

## Licence and attribution

The texts are user content of the Stack Exchange network under **CC BY-SA**, by their authors. Whoever passes them on
names the network, the post, its author and the licence, and keeps the licence. `attribution.csv` names all
{number(posts.height)} posts with link, author and licence: {named}.
"""
