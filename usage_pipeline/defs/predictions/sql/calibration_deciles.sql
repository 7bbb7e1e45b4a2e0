-- grain: target x back-test x decile of the rows, by the probability that the method in force gave them
SELECT
    target,
    title AS risk,
    CAST(origin AS BIGINT) AS backtest_number,
    CAST(decile AS BIGINT) AS decile,
    CAST(rows AS BIGINT) AS judged,
    said AS mean_probability,
    outcome AS observed_share,
    low AS share_low,
    high AS share_high
FROM core.risk_deciles
ORDER BY target, origin, decile
