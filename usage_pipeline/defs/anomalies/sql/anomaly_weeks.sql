-- grain: an anomalous week in words: of an account's application lately, of an application over all accounts, or of all
WITH newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
),

-- a step that one measure has told of is not told again where others see it later and it goes no further in them
told_before AS (
    SELECT DISTINCT
        later.measure,
        later.week_start,
        later.account_id,
        later.application
    FROM core.anomalies AS steps
    INNER JOIN core.anomalies AS later
        ON
            steps.account_id = later.account_id
            AND steps.application = later.application
            AND steps.measure != later.measure
            AND steps.week_start < later.week_start
            AND later.first_week >= steps.first_week - 7 * $step_weeks
            AND later.first_week < steps.first_week + 7 * 2 * $step_weeks
            AND (later.z < 0) = (steps.kind = 'step down')
    WHERE
        steps.kind IN ('step up', 'step down')
        AND steps.scope = 'account'
        AND later.scope = 'account'
        -- half of what is left, or twice of it, is another happening
        AND CASE
            WHEN later.z < 0 THEN 2 * later.observed * steps.expected >= steps.observed * later.expected
            ELSE later.observed * steps.expected <= 2 * steps.observed * later.expected
        END
),

listed AS (
    SELECT
        anomalies.*,
        anomalies.observed / anomalies.weeks AS observed_per_week,
        anomalies.expected / anomalies.weeks AS expected_per_week,
        1.64 * sqrt(anomalies.variance) / anomalies.weeks AS margin,
        -- one happening is one row: its clicks, or else its users, or else its records
        row_number() OVER (
            PARTITION BY anomalies.scope, anomalies.week_start, anomalies.account_id, anomalies.application
            ORDER BY CASE anomalies.measure WHEN 'clicks' THEN 1 WHEN 'users' THEN 2 ELSE 3 END
        ) AS place
    FROM core.anomalies AS anomalies
    CROSS JOIN newest
    ANTI JOIN told_before
        ON
            anomalies.scope = 'account'
            AND anomalies.measure = told_before.measure
            AND anomalies.week_start = told_before.week_start
            AND anomalies.account_id = told_before.account_id
            AND anomalies.application = told_before.application
    -- what the platform did stays in sight for as long as the curves show it
    WHERE anomalies.scope != 'account' OR anomalies.week_start > newest.week_start - 7 * $listed_weeks
),

others AS (
    SELECT
        scope,
        week_start,
        account_id,
        application,
        string_agg($words__measure[measure], $text__word__between ORDER BY measure) AS measures
    FROM listed
    WHERE place > 1
    GROUP BY scope, week_start, account_id, application
),

firsts AS (
    SELECT
        listed.*,
        others.measures AS other_measures
    FROM listed
    LEFT JOIN others
        ON
            listed.scope = others.scope
            AND listed.week_start = others.week_start
            AND listed.account_id IS NOT DISTINCT FROM others.account_id
            AND listed.application IS NOT DISTINCT FROM others.application
    WHERE listed.place = 1
),

-- of the subscription that ran then, as of the week: the regular users of risks and of people
began AS (
    SELECT
        firsts.week_start,
        firsts.account_id,
        firsts.application,
        max(periods.start_date) AS start_date
    FROM firsts
    INNER JOIN core.subscription_periods AS periods
        ON
            firsts.account_id = periods.account_id
            AND firsts.application = periods.application
            AND firsts.week_start + 6 >= periods.start_date
    WHERE firsts.scope = 'account'
    GROUP BY firsts.week_start, firsts.account_id, firsts.application
),

people AS (
    SELECT
        firsts.week_start,
        firsts.account_id,
        firsts.application,
        users.user_id,
        count(*) FILTER (
            WHERE weeks.is_complete
            AND users.week_start > firsts.week_start - 7 * $regular_reach_weeks
            AND users.week_start <= firsts.week_start - 7 * $regular_recent_weeks
            AND users.week_start >= coalesce(began.start_date, users.week_start)
        ) AS weeks_of_baseline,
        max(users.last_day) FILTER (WHERE users.week_start < firsts.week_start) AS last_day,
        coalesce(
            sum(users.clicks) FILTER (
                WHERE users.week_start < firsts.first_week AND users.week_start >= firsts.first_week - 28
            ), 0
        ) / 4 AS clicks_before,
        coalesce(sum(users.clicks) FILTER (WHERE users.week_start = firsts.week_start), 0) AS clicks
    FROM firsts
    INNER JOIN core.weekly_users AS users
        ON
            firsts.account_id = users.account_id
            AND firsts.application = users.application
            AND firsts.week_start >= users.week_start
            AND least(firsts.first_week - 28, firsts.week_start - 7 * ($regular_reach_weeks - 1)) <= users.week_start
    INNER JOIN core.weeks AS weeks ON users.week_start = weeks.week_start
    LEFT JOIN began
        ON
            firsts.week_start = began.week_start
            AND firsts.account_id = began.account_id
            AND firsts.application = began.application
    WHERE
        firsts.scope = 'account'
        AND users.user_id IS NOT NULL
        AND users.clicks > 0
    GROUP BY firsts.week_start, firsts.account_id, firsts.application, users.user_id
),

contributed AS (
    SELECT
        week_start,
        account_id,
        application,
        count(*) FILTER (WHERE weeks_of_baseline >= $regular_weeks) AS regulars,
        count(*) FILTER (WHERE weeks_of_baseline >= $regular_weeks AND clicks = 0) AS absent,
        max(last_day) FILTER (WHERE weeks_of_baseline >= $regular_weeks AND clicks = 0) AS last_seen_on,
        -- of an account that is one person everything is of one
        max(clicks - clicks_before) / nullif(sum(clicks - clicks_before), 0)
        * CASE WHEN count(*) > 1 THEN 1 END AS share_of_one
    FROM people
    GROUP BY week_start, account_id, application
),

causes AS (
    SELECT
        firsts.scope,
        firsts.week_start,
        firsts.account_id,
        firsts.application,
        min(known.cause) AS cause
    FROM firsts
    INNER JOIN ref.known_causes AS known
        ON
            (known.account_id IS NULL OR firsts.account_id = known.account_id)
            AND (known.application IS NULL OR firsts.application = known.application)
            AND firsts.week_start <= coalesce(known.last_day, DATE '9999-12-31')
            AND firsts.week_start + 6 >= known.first_day
    GROUP BY firsts.scope, firsts.week_start, firsts.account_id, firsts.application
),

-- a subscription that is known to end, or that notice was given of, is used less and less
endings AS (
    SELECT
        account_id,
        application,
        min(
            CASE
                WHEN notice_date IS NOT NULL
                    THEN format($text__anomaly__notice, strftime(notice_date, $date_format))
                ELSE format($text__anomaly__ends, strftime(end_date, $date_format))
            END
        ) AS ending
    FROM core.subscription_periods
    CROSS JOIN newest
    WHERE notice_date <= newest.week_start + 6 OR end_date BETWEEN newest.week_start AND newest.week_start + 90
    GROUP BY account_id, application
),

-- as many users as expected and twice the clicks: rows that came twice look like this
users_of AS (
    SELECT
        keys.application,
        expected.week_start,
        sum(weekly.active_users) AS active_users,
        sum(expected.expected_users) AS expected_users
    FROM core.expected_usage AS expected
    INNER JOIN core.account_applications AS keys ON expected.account_application_id = keys.account_application_id
    INNER JOIN core.subscription_weeks AS weekly
        ON
            expected.account_application_id = weekly.account_application_id
            AND expected.week_start = weekly.week_start
    WHERE expected.expected_users IS NOT NULL
    GROUP BY keys.application, expected.week_start
),

-- people leave, and the work is done all the same: over all weeks of the event, so that no single one decides
still_done AS (
    SELECT
        events.account_id,
        events.application,
        events.first_week
    FROM (
        SELECT
            account_id,
            application,
            first_week,
            max(last_week) AS last_week
        FROM firsts
        WHERE
            scope = 'account'
            AND measure = 'users'
            AND kind IN ('usage drop', 'step down', 'slow decline')
        GROUP BY account_id, application, first_week
    ) AS events
    INNER JOIN core.account_applications AS keys
        ON events.account_id = keys.account_id AND events.application = keys.application
    INNER JOIN core.expected_usage AS expected
        ON
            keys.account_application_id = expected.account_application_id
            AND expected.week_start BETWEEN events.first_week AND events.last_week
    INNER JOIN core.subscription_weeks AS weekly
        ON
            expected.account_application_id = weekly.account_application_id
            AND expected.week_start = weekly.week_start
    WHERE expected.expected_records IS NOT NULL
    GROUP BY events.account_id, events.application, events.first_week
    HAVING
        avg(expected.expected_records) >= $low_floor_clicks
        AND sum(weekly.records_created) >= (1 - $anomaly_relative_floor) * sum(expected.expected_records)
),

-- where nothing was ever used before, the rise is the first use
used_before AS (
    SELECT
        keys.account_id,
        keys.application,
        min(weekly.week_start) AS first_week
    FROM core.subscription_weeks AS weekly
    INNER JOIN core.account_applications AS keys ON weekly.account_application_id = keys.account_application_id
    WHERE weekly.clicks > 0
    GROUP BY keys.account_id, keys.application
),

told AS (
    SELECT
        firsts.*,
        firsts.measure = 'clicks'
        AND firsts.weeks = 1
        AND firsts.observed BETWEEN 1.8 * firsts.expected AND 2.2 * firsts.expected
        AND CASE
            WHEN firsts.scope = 'account'
                THEN subscription_weeks.active_users < 1.25 * records.expected_users
            ELSE users_of.active_users < 1.25 * users_of.expected_users
        END AS may_have_come_twice,
        endings.ending,
        causes.cause,
        contributed.regulars,
        contributed.absent,
        contributed.last_seen_on,
        contributed.share_of_one,
        firsts.measure = 'users'
        AND firsts.kind IN ('usage drop', 'step down', 'slow decline')
        AND still_done.account_id IS NOT NULL AS is_automated,
        firsts.scope = 'account'
        AND firsts.kind IN ('spike', 'step up')
        AND firsts.first_week <= used_before.first_week AS is_first_use
    FROM firsts
    LEFT JOIN
        core.account_applications AS account_applications
        ON firsts.account_id = account_applications.account_id AND firsts.application = account_applications.application
    LEFT JOIN core.expected_usage AS records
        ON
            account_applications.account_application_id = records.account_application_id
            AND firsts.week_start = records.week_start
    LEFT JOIN
        core.subscription_weeks AS subscription_weeks
        ON
            account_applications.account_application_id = subscription_weeks.account_application_id
            AND firsts.week_start = subscription_weeks.week_start
    LEFT JOIN users_of
        ON
            firsts.scope = 'application'
            AND firsts.application = users_of.application
            AND firsts.week_start = users_of.week_start
    LEFT JOIN contributed
        ON
            firsts.scope = 'account'
            AND firsts.week_start = contributed.week_start
            AND firsts.account_id = contributed.account_id
            AND firsts.application = contributed.application
    LEFT JOIN still_done
        ON
            firsts.scope = 'account'
            AND firsts.account_id = still_done.account_id
            AND firsts.application = still_done.application
            AND firsts.first_week = still_done.first_week
    LEFT JOIN used_before
        ON firsts.account_id = used_before.account_id AND firsts.application = used_before.application
    LEFT JOIN endings
        ON
            firsts.scope = 'account'
            AND firsts.account_id = endings.account_id
            AND firsts.application = endings.application
    LEFT JOIN causes
        ON
            firsts.scope = causes.scope
            AND firsts.week_start = causes.week_start
            AND firsts.account_id IS NOT DISTINCT FROM causes.account_id
            AND firsts.application IS NOT DISTINCT FROM causes.application
)

SELECT
    CAST(told.week_start AS TIMESTAMP) AS week_start,
    told.scope,
    told.account_id,
    coalesce(names.account, 'all accounts') AS account,
    coalesce(applications.application_key, 'all') AS application_key,
    coalesce(applications.application, 'all applications') AS application,
    coalesce(applications.application_type, 'all applications') AS application_type,
    names.segment,
    names.region,
    names.owner,
    told.measure,
    CASE
        WHEN told.is_automated THEN 'fewer users, as many records'
        ELSE told.kind
    END AS anomaly_type,
    CASE WHEN told.kind IN ('spike', 'step up') THEN 'up' ELSE 'down' END AS direction,
    CASE
        WHEN told.cause IS NOT NULL OR told.is_automated OR told.is_first_use THEN 'explained'
        ELSE told.confidence
    END AS confidence,
    told.state AS anomaly_status,
    CAST(told.first_week AS TIMESTAMP) AS first_week,
    CAST(told.last_week AS TIMESTAMP) AS last_week,
    told.observed_per_week,
    told.expected_per_week,
    told.observed_per_week - told.expected_per_week AS change_per_week,
    told.observed / nullif(told.expected, 0) - 1 AS change_share,
    row_number() OVER (
        PARTITION BY
            told.scope, told.account_id, told.application, told.first_week, told.kind IN ('spike', 'step up')
        ORDER BY
            CASE WHEN told.scope = 'account' THEN epoch(told.week_start) ELSE abs(told.z) END DESC, told.week_start DESC
    ) = 1 AS is_event_row,
    told.p_value,
    abs(told.z) AS strength,
    told.cause,
    CASE
        WHEN told.scope = 'account'
            THEN
                format(
                    $text__anomaly__of_account,
                    coalesce(applications.application, $text__anomaly__all_applications),
                    names.account
                )
        ELSE
            format(
                $text__anomaly__of_all_accounts,
                coalesce(applications.application, $text__anomaly__all_applications)
            )
    END
    || translate(format('{:,}', CAST(round(told.observed_per_week) AS BIGINT)), ',.', $separators) || ' '
    || CASE
        WHEN told.measure = 'clicks' AND round(told.observed_per_week) = 1 THEN $text__anomaly__click
        WHEN told.measure = 'clicks' THEN $text__anomaly__clicks
        WHEN told.measure = 'records' AND round(told.observed_per_week) = 1 THEN $text__anomaly__record
        WHEN told.measure = 'records' THEN $text__anomaly__records
        WHEN told.measure = 'users' AND round(told.observed_per_week) = 1 THEN $text__anomaly__user
        ELSE $text__anomaly__users
    END
    || CASE WHEN told.weeks > 1 THEN format($text__anomaly__over_weeks, told.weeks) ELSE '' END
    || CASE
        WHEN round(told.expected_per_week + told.margin) = 0 THEN $text__anomaly__expected_none
        -- of small and skewed counts the range may hold what came: then the middle is the honest figure
        WHEN
            round(told.observed_per_week) BETWEEN round(greatest(told.expected_per_week - told.margin, 0))
            AND round(told.expected_per_week + told.margin)
            THEN
                format(
                    $text__anomaly__expected_about,
                    translate(format('{:,}', CAST(round(told.expected_per_week) AS BIGINT)), ',.', $separators)
                )
        ELSE
            format(
                $text__anomaly__expected_range,
                translate(
                    format('{:,}', CAST(round(greatest(told.expected_per_week - told.margin, 0)) AS BIGINT)),
                    ',.',
                    $separators
                ),
                translate(
                    format('{:,}', CAST(round(told.expected_per_week + told.margin) AS BIGINT)), ',.', $separators
                )
            )
    END
    || CASE
        WHEN told.is_automated
            THEN $text__anomaly__automated
        WHEN told.is_first_use THEN $text__anomaly__first_use
        WHEN told.may_have_come_twice THEN $text__anomaly__came_twice
        WHEN told.z < 0 AND told.absent > 0
            THEN
                CASE
                    WHEN told.regulars = 1 AND told.weeks > 1
                        THEN format($text__anomaly__one_absent_lately, strftime(told.week_start, $date_format))
                    WHEN told.regulars = 1 THEN $text__anomaly__one_absent
                    WHEN told.weeks > 1
                        THEN
                            format(
                                $text__anomaly__absent_lately,
                                told.absent,
                                told.regulars,
                                strftime(told.week_start, $date_format)
                            )
                    ELSE format($text__anomaly__absent, told.absent, told.regulars)
                END
                || CASE
                    WHEN $has_days AND told.absent = told.regulars
                        THEN format($text__anomaly__last_seen, strftime(told.last_seen_on, $date_format))
                    ELSE ''
                END
        WHEN told.z > 0 AND told.share_of_one BETWEEN 0.5 AND 1
            THEN format($text__anomaly__one_user, round(100 * told.share_of_one)::INTEGER)
        ELSE ''
    END
    || CASE
        WHEN told.accounts_moved > 0
            THEN
                format(
                    CASE
                        -- of all applications each account counts once for each of them
                        WHEN applications.application IS NULL AND told.z < 0 THEN $text__anomaly__subscriptions_below
                        WHEN applications.application IS NULL THEN $text__anomaly__subscriptions_above
                        WHEN told.z < 0 THEN $text__anomaly__accounts_below
                        ELSE $text__anomaly__accounts_above
                    END,
                    told.accounts_moved,
                    told.accounts
                )
        ELSE ''
    END
    || CASE WHEN told.other_measures IS NOT NULL THEN format($text__anomaly__too, told.other_measures) ELSE '' END
    || CASE
        WHEN told.scope != 'account' OR told.peers_change IS NULL THEN ''
        WHEN abs(told.peers_change) < 0.1 THEN $text__anomaly__peers_steady
        ELSE
            format(
                $text__anomaly__peers_changed,
                CASE WHEN told.peers_change > 0 THEN '+' ELSE '' END || round(100 * told.peers_change)::INTEGER
            )
    END
    || CASE WHEN told.basis = 'peers' THEN $text__anomaly__by_peers ELSE '' END
    || CASE
        WHEN told.scope != 'account' AND told.first_week < told.last_week
            THEN
                format(
                    $text__anomaly__weeks_of,
                    strftime(told.first_week, $date_format),
                    strftime(told.last_week, $date_format)
                )
        WHEN told.first_week < told.week_start
            THEN format($text__anomaly__since, strftime(told.first_week, $date_format))
        ELSE ''
    END
    || CASE WHEN told.ending IS NOT NULL AND told.z < 0 THEN '; ' || told.ending ELSE '' END
    || CASE WHEN told.cause IS NOT NULL THEN format($text__anomaly__known, told.cause) ELSE '' END
        AS what_happened
FROM told
LEFT JOIN core.application_names AS applications ON told.application = applications.application_key
LEFT JOIN core.account_names AS names ON told.account_id = names.account_id
ORDER BY told.week_start DESC, told.scope = 'account', strength DESC
