-- grain: a subscribed account of a known segment, and the group of its peers: segment, and size where delivered
WITH subscribed AS (
    SELECT
        accounts.account_id,
        accounts.segment,
        accounts.size
    FROM ref.accounts AS accounts
    INNER JOIN core.account_subscriptions AS subscriptions ON accounts.account_id = subscriptions.account_id
    WHERE
        accounts.segment IS NOT NULL
        AND subscriptions.subscription_state IN ('active subscription', 'notice received')
),

-- bands of equally many accounts, and those of one size in one band
banded AS (
    SELECT
        *,
        CASE
            WHEN size IS NOT NULL
                THEN
                    1 + (rank() OVER (PARTITION BY segment, size IS NULL ORDER BY size) - 1) * $size_bands
                    // count(size) OVER (PARTITION BY segment)
        END AS size_band,
        count(size) OVER () > 0 AS is_size_delivered
    FROM subscribed
)

SELECT
    account_id,
    segment,
    size,
    CAST(size_band AS INTEGER) AS size_band,
    segment
    || CASE
        WHEN NOT is_size_delivered THEN ''
        WHEN size_band IS NULL THEN $text__peers__size_not_delivered
        ELSE
            format(
                $text__peers__size,
                translate(
                    format('{:,}', CAST(min(size) OVER (PARTITION BY segment, size_band) AS BIGINT)), ',.', $separators
                ),
                translate(
                    format('{:,}', CAST(max(size) OVER (PARTITION BY segment, size_band) AS BIGINT)), ',.', $separators
                )
            )
    END AS peer_group
FROM banded
