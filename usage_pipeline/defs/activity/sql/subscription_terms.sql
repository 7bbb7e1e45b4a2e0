-- grain: account x application (none: the whole account) x stretch of days in which one value and number of seats held
WITH RECURSIVE delivered AS (
    -- a row that ended before it began was never subscribed
    SELECT
        account_id,
        application,
        start_date,
        coalesce(end_date, DATE '9999-12-31') AS end_date,
        seats,
        -- to the cent, so that sums are exact; a value that is no amount of money is none
        TRY_CAST(annual_value AS DECIMAL(18, 2)) AS annual_value
    FROM ref.subscriptions
    WHERE end_date IS NULL OR end_date >= start_date
),

application_rows AS (
    SELECT *
    FROM delivered
    WHERE application IS NOT NULL
),

-- days on which what is told can change: a row begins, or has ended
changes AS (
    SELECT
        account_id,
        application,
        start_date AS first_day
    FROM application_rows
    UNION
    SELECT
        account_id,
        application,
        end_date + 1 AS first_day
    FROM application_rows
    WHERE end_date < DATE '9999-12-31'
),

told AS (
    SELECT
        changes.account_id,
        changes.application,
        changes.first_day,
        -- of rows that overlap, the one that began last; the rest of the key only settles ties, so that the order of
        -- rows means nothing
        max(
            struct_pack(
                start_date := covering.start_date,
                end_date := covering.end_date,
                known_value := coalesce(covering.annual_value, -1),
                known_seats := coalesce(covering.seats, -1),
                annual_value := covering.annual_value,
                seats := covering.seats
            )
        ) FILTER (WHERE covering.start_date IS NOT NULL) AS terms
    FROM changes
    LEFT JOIN application_rows AS covering
        ON
            changes.account_id = covering.account_id
            AND changes.application = covering.application
            AND changes.first_day BETWEEN covering.start_date AND covering.end_date
    GROUP BY changes.account_id, changes.application, changes.first_day
),

stretches AS (
    SELECT
        account_id,
        application,
        first_day,
        coalesce(lead(first_day) OVER stretch - 1, DATE '9999-12-31') AS last_day,
        -- between two rows of one period, what was told last goes on
        coalesce(terms, lag(terms) OVER stretch) AS terms
    FROM told
    WINDOW
        stretch AS (PARTITION BY account_id, application ORDER BY first_day)
),

-- the same days in force as those of the periods: gaps that make two of one are in none, account rows cap
within_periods AS (
    SELECT
        stretches.account_id,
        stretches.application,
        periods.period_number,
        greatest(stretches.first_day, periods.start_date) AS start_date,
        least(stretches.last_day, periods.end_date) AS end_date,
        stretches.terms.seats AS told_seats,
        stretches.terms.annual_value AS told_value
    FROM stretches
    INNER JOIN core.subscription_periods AS periods
        ON
            stretches.account_id = periods.account_id
            AND stretches.application = periods.application
            AND stretches.first_day <= periods.end_date
            AND stretches.last_day >= periods.start_date
    WHERE periods.basis = 'application'
),

-- an empty cell changes nothing: it has what was known before it in its period, or else what is known first after it
filled AS (
    SELECT
        * EXCLUDE (told_seats, told_value),
        coalesce(last_value(told_seats IGNORE NULLS) OVER so_far, first_value(told_seats IGNORE NULLS) OVER from_here)
            AS seats,
        coalesce(last_value(told_value IGNORE NULLS) OVER so_far, first_value(told_value IGNORE NULLS) OVER from_here)
            AS annual_value
    FROM within_periods
    WINDOW
        so_far AS (
            PARTITION BY account_id, application, period_number
            ORDER BY start_date
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ),
        from_here AS (
            PARTITION BY account_id, application, period_number
            ORDER BY start_date
            ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
        )
),

compared AS (
    SELECT
        *,
        struct_pack(s := seats, v := annual_value) AS terms,
        lag(struct_pack(s := seats, v := annual_value)) OVER (
            PARTITION BY account_id, application, period_number ORDER BY start_date
        ) AS terms_before
    FROM filled
),

numbered AS (
    SELECT
        *,
        count(*) FILTER (WHERE terms_before IS DISTINCT FROM terms) OVER (
            PARTITION BY account_id, application, period_number ORDER BY start_date
        ) AS stretch
    FROM compared
),

of_applications AS (
    SELECT
        account_id,
        application,
        min(start_date) AS start_date,
        max(end_date) AS end_date,
        any_value(seats) AS seats,
        any_value(annual_value) AS annual_value
    FROM numbered
    GROUP BY account_id, application, period_number, stretch
),

numbered_account_rows AS (
    SELECT
        *,
        row_number() OVER (ORDER BY account_id, start_date, end_date, annual_value, seats) AS place
    FROM delivered
    WHERE application IS NULL
),

following AS (
    SELECT
        earlier.place AS renewed,
        later.place AS renewal
    FROM numbered_account_rows AS earlier
    INNER JOIN numbered_account_rows AS later
        ON
            earlier.account_id = later.account_id
            AND earlier.end_date < later.start_date
            AND later.start_date - earlier.end_date - 1 < $renewal_gap_days
    -- the first to begin after its end, and the last to end before its start
    QUALIFY
        rank() OVER (PARTITION BY earlier.place ORDER BY later.start_date) = 1
        AND rank() OVER (PARTITION BY later.place ORDER BY earlier.end_date DESC) = 1
),

-- of two that begin or end at once nobody knows which renews which
renewals AS (
    SELECT *
    FROM following
    QUALIFY count(*) OVER (PARTITION BY renewed) = 1 AND count(*) OVER (PARTITION BY renewal) = 1
),

-- a row about the whole account and those that renew it, one after the other
chains AS (
    SELECT
        place,
        place AS chain
    FROM numbered_account_rows
    WHERE place NOT IN (SELECT renewal FROM renewals)
    UNION ALL
    SELECT
        renewals.renewal AS place,
        chains.chain
    FROM chains
    INNER JOIN renewals ON chains.place = renewals.renewed
),

-- an empty cell of a renewal changes nothing; beside rows about applications an empty row only frames these
account_rows AS (
    SELECT
        given.* EXCLUDE (seats, annual_value),
        CASE
            WHEN given.seats IS NOT NULL OR given.account_id IN (SELECT account_id FROM application_rows)
                THEN given.seats
            ELSE
                coalesce(
                    last_value(given.seats IGNORE NULLS) OVER chain_so_far,
                    first_value(given.seats IGNORE NULLS) OVER chain_from_here
                )
        END AS seats,
        CASE
            WHEN given.annual_value IS NOT NULL OR given.account_id IN (SELECT account_id FROM application_rows)
                THEN given.annual_value
            ELSE
                coalesce(
                    last_value(given.annual_value IGNORE NULLS) OVER chain_so_far,
                    first_value(given.annual_value IGNORE NULLS) OVER chain_from_here
                )
        END AS annual_value
    FROM numbered_account_rows AS given
    INNER JOIN chains ON given.place = chains.place
    WINDOW
        chain_so_far AS (
            PARTITION BY chains.chain
            ORDER BY given.start_date
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ),
        chain_from_here AS (
            PARTITION BY chains.chain
            ORDER BY given.start_date
            ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
        )
),

-- rows about the whole account run side by side, and each counts
of_accounts AS (
    SELECT
        ended.account_id,
        ended.application,
        ended.start_date,
        -- where none of the account goes on, those that ended last do, until the next one of the same period begins
        CASE
            WHEN
                min(later.start_date) > ended.end_date + 1
                AND min(later.start_date) - ended.end_date - 1 < $renewal_gap_days
                THEN min(later.start_date) - 1
            ELSE ended.end_date
        END AS end_date,
        ended.seats,
        ended.annual_value
    FROM account_rows AS ended
    LEFT JOIN account_rows AS later ON ended.account_id = later.account_id AND ended.end_date < later.end_date
    GROUP BY
        ended.place,
        ended.account_id,
        ended.application,
        ended.start_date,
        ended.end_date,
        ended.seats,
        ended.annual_value
),

terms AS (
    SELECT * FROM of_applications
    UNION ALL
    SELECT * FROM of_accounts
)

SELECT
    account_id,
    application,
    CAST(
        row_number() OVER (
            PARTITION BY account_id, application ORDER BY start_date, end_date, annual_value, seats
        ) AS INTEGER
    ) AS term_number,
    start_date,
    end_date,
    seats,
    annual_value
FROM terms
ORDER BY account_id, application, term_number
