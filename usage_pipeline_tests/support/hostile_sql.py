"""SQL and queries of strangers."""


def nested(depth: int, kind: str) -> str:
    """JSON nested that deep, with an expression at its bottom."""
    inner = '{"sqlExpression": "sum(clicks)"}'
    return "[" * depth + inner + "]" * depth if kind == "list" else '{"a":' * depth + inner + "}" * depth


TEMPLATED = [
    "SELECT '{{ 1 }}'",
    "SELECT 1 -- {% if x %}",
    "SELECT 1 /* {# */, * FROM sqlite_master /* #} */",
    "{% set a = 1 %}SELECT 1",
    "SELECT {{ current_user_id() }}",
]


HIDDEN = [
    "SELECT * FROM {t}, (WITH {t} AS (SELECT 1 AS x) SELECT x FROM {t}) AS b",
    "SELECT * FROM (WITH {t} AS (SELECT 1 AS x) SELECT x FROM {t}) AS b, {t}",
    "WITH {t} AS (SELECT * FROM {t}) SELECT * FROM {t}",
    "WITH RECURSIVE {t} AS (SELECT * FROM {t}) SELECT * FROM {t}",
    "WITH RECURSIVE {t} AS (SELECT * FROM {t} UNION ALL SELECT * FROM {t}) SELECT * FROM {t}",
    "WITH a AS (SELECT * FROM {t}), {t} AS (SELECT 1) SELECT * FROM a",
    "WITH b AS (WITH {t} AS (SELECT 1) FROM {t}) SELECT * FROM b, {t}",
    "SELECT (WITH {t} AS (SELECT 1 AS x) SELECT max(x) FROM {t}) FROM {t}",
    "SELECT 1 FROM build WHERE EXISTS (WITH {t} AS (SELECT 1) FROM {t}) AND EXISTS (FROM {t})",
    "WITH {t} AS (SELECT 1) SELECT * FROM main.{t}",
    "WITH {t} AS (SELECT 1) SELECT * FROM system.main.{t}",
    "SELECT 1 FROM build UNION ALL (WITH {t} AS (SELECT 1) SELECT 1 FROM {t}) UNION ALL SELECT 1 FROM {t}",
    "WITH a AS (SELECT 1) SELECT * FROM a, LATERAL (SELECT * FROM {t}) AS b",
    'WITH "{t} " AS (SELECT 1) SELECT * FROM {t}',
]
