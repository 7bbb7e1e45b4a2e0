-- a row: target x back-test x tenth of the rows, by the chance that the method in force gave them
SELECT
    target,
    title AS risk,
    CAST(origin AS BIGINT) AS backtest_number,
    CAST(tenth AS BIGINT) AS tenth,
    CAST(rows AS BIGINT) AS judged,
    said AS chance_said,
    happened AS share_happened,
    low AS share_low,
    high AS share_high
FROM core.risk_tenths
ORDER BY target, origin, tenth
