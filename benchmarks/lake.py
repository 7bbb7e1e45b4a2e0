"""A skewed lake for benchmarks: accounts over orders of magnitude, few heavy users, quick to write.

Unlike the demo lake it holds no subscriptions and no story; only its size and its skew matter.
"""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FIRST_WEEK = date(2024, 1, 1)
COLUMNS = ("account_id", "application", "user_id", "event_time", "clicks", "records_created")
_BATCH = 1_000_000


def write_lake(
    folder: Path, *, weeks: int, events_a_week: int, accounts: int = 3000, applications: int = 20, seed: int = 1
) -> None:
    """`weeks` folders of one Parquet file each: a row an event, six columns that are mapped and two that are not."""
    rng = np.random.default_rng(seed)
    size = rng.lognormal(0, 1.6, accounts)
    size /= size.sum()
    users = np.maximum(1, (size * 5000).astype(int))
    first_user = np.concatenate([[0], np.cumsum(users)])
    owned = np.argsort(rng.random((accounts, applications)), axis=1)
    owns = rng.integers(1, applications * 3 // 5, accounts)
    names = (
        pa.array([f"ACC-{i:06d}" for i in range(accounts)]),
        pa.array([f"application_{i:02d}" for i in range(applications)]),
        pa.array([f"u{i:07d}@example.org" for i in range(first_user[-1])]),
    )

    def rows(week: date, count: int) -> pa.Table:
        account = rng.choice(accounts, count, p=size)
        application = owned[account, (rng.random(count) ** 3 * owns[account]).astype(int)]
        user = first_user[account] + (rng.random(count) ** 2 * users[account]).astype(int)
        day = rng.choice(7, count, p=[0.19, 0.19, 0.19, 0.19, 0.16, 0.05, 0.03])
        second = np.clip(rng.normal(13 * 3600, 3 * 3600, count), 0, 86399)
        moment = np.datetime64(week, "us") + (day * 86400e6 + second * 1e6).astype("timedelta64[us]")
        return pa.table(
            {
                "event_time": np.sort(moment),
                "account_id": names[0].take(pa.array(account)),
                "application": names[1].take(pa.array(application)),
                "user_id": names[2].take(pa.array(user)),
                "clicks": rng.poisson(3, count) + 1,
                "records_created": (rng.random(count) < 0.2).astype("int64"),
                "session": rng.integers(0, 1 << 60, count),
                "page": rng.integers(0, 500, count),
            }
        )

    for number in range(weeks):
        week = FIRST_WEEK + timedelta(weeks=number)
        iso = week.isocalendar()
        file = folder / f"year={iso.year}" / f"week={iso.week:02d}" / "part-0.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        left = events_a_week
        first = rows(week, min(_BATCH, left))
        with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
            writer.write_table(first, row_group_size=122_880)
            while (left := left - _BATCH) > 0:
                writer.write_table(rows(week, min(_BATCH, left)), row_group_size=122_880)
