"""How many jobs there are, by owners, readers, application and state."""

from collections import Counter
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}
BATCH = 10_000

JOBS = sa.table(
    "job_queue",
    sa.column("job_id", sa.BigInteger),
    sa.column("owners", sa.Text),
    sa.column("read_access", sa.Text),
    sa.column("application", sa.String),
    sa.column("state", sa.String),
)


def upgrade() -> None:
    counts = op.create_table(
        "job_counts",
        sa.Column("kind", sa.String(length=1), nullable=False),
        sa.Column("set_id", sa.String(length=32), nullable=False),
        sa.Column("application", sa.String(length=254), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("slot", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "set_id", "application", "state", "slot"),
        **OPTIONS,
    )
    sets = op.create_table(
        "access_sets",
        sa.Column("name", sa.String(length=254), nullable=False),
        sa.Column("set_id", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("name", "set_id"),
        **OPTIONS,
    )
    op.create_index(op.f("ix_access_sets_set_id"), "access_sets", ["set_id"], unique=False)
    found, names = _count(op.get_bind())
    rows = [
        {"kind": kind, "set_id": set_id, "application": application, "state": state, "slot": 0, "number": number}
        for (kind, set_id, application, state), number in sorted(found.items())
    ]
    op.bulk_insert(counts, rows)
    op.bulk_insert(sets, [{"name": name, "set_id": set_id} for name, set_id in sorted(names)])


def _count(connection: sa.Connection) -> tuple[Counter[tuple[str, str, str, str]], set[tuple[str, str]]]:
    """The jobs of each kind, set, application and state; the names of each set."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    names: set[tuple[str, str]] = set()
    last = 0
    while rows := connection.execute(
        sa.select(*JOBS.c).where(JOBS.c.job_id > last).order_by(JOBS.c.job_id).limit(BATCH)
    ).all():
        for row in rows:
            last = row.job_id
            for kind, text in (("o", row.owners), ("r", row.read_access)):
                listed = {name for name in map(str.strip, text.split(",")) if name}
                set_id = sha256(",".join(sorted(listed)).encode()).hexdigest()[:32]
                found[kind, set_id, row.application, row.state] += 1
                names |= {(name, set_id) for name in listed}
    return found, names


def downgrade() -> None:
    op.drop_table("access_sets")
    op.drop_table("job_counts")
