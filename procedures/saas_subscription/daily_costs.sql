-- The rows of saas_subscription_plan_costs_daily: what each day of each SaaS plan costs, one row per subscription
-- and day in force, free days included.
--
-- Same rule as engine/saas, which the tests compare with this: day number k of a term of n days costs
-- R(C*k/n) - R(C*(k-1)/n), C being the term's cost and R rounding half up to 9 places, so that the days of a
-- term sum to C. It is computed in whole billionths (INT64): C = n*(whole + nano/10^9) + rest/10^9, thus
-- R(C*k/n) = k*whole + (k*nano + R(rest*k/n))/10^9 without any division that could round by itself. (The
-- embedded BigQuery divides NUMERIC through a double, and takes DIV(a + b, c) for a + DIV(b, c): hence the
-- parentheses.)
CREATE OR REPLACE PROCEDURE saas_subscription_daily_costs(
  dataset STRING,
  staging STRING,
  start_date DATE,
  end_date DATE
)
BEGIN
  DECLARE tables INT64;
  DECLARE refused STRING;

  ASSERT start_date <= end_date AS 'start_date lies after end_date';

  -- No plans known is not the same as no costs.
  EXECUTE IMMEDIATE FORMAT("""
    SELECT COUNT(*) FROM `%s.INFORMATION_SCHEMA.TABLES` WHERE table_name = 'saas_subscription_plans'
  """, dataset) INTO tables;
  IF tables = 0 THEN
    RAISE USING MESSAGE = 'There are no plans yet: import them with manta saas plan import';
  END IF;

  -- Rows that did not come through manta: computed they would be wrong in silence. (Columns that are named
  -- like a parameter are qualified: the embedded BigQuery takes them for the parameter otherwise.)
  EXECUTE IMMEDIATE FORMAT("""
    SELECT MIN(CONCAT(subscription_id, ' from ', CAST(effective_from AS STRING)))
    FROM (
      SELECT *
      FROM `%s.saas_subscription_plans`
      WHERE TRUE
      QUALIFY ROW_NUMBER() OVER (
        PARTITION BY subscription_id, effective_from ORDER BY change_number DESC, plan_version DESC
      ) = 1
    ) AS plan
    WHERE plan.status != 'VOID' AND (
      COALESCE(billing_cycle, '')
        NOT IN ('weekly', 'monthly', 'quarterly', 'semi_annual', 'annual', 'custom')
      OR (billing_cycle = 'custom' AND COALESCE(custom_days, 0) < 1)
      OR COALESCE(pricing_model, '') NOT IN ('PER_SEAT', 'FLAT_FEE')
      OR seats < 0 OR seats > 10000000 OR unit_price < 0
      OR unit_price * IF(pricing_model = 'PER_SEAT', seats, 1) >= 1000000000000000
      OR COALESCE(discount_type, 'fixed') NOT IN ('percent', 'fixed') OR COALESCE(discount_value, 0) < 0
      OR (discount_type = 'percent' AND COALESCE(discount_value, 101) > 100)
      OR COALESCE(billing_anchor_day, 1) NOT BETWEEN 1 AND 31
      OR COALESCE(billing_anchor_month, 1) NOT BETWEEN 1 AND 12
      OR fiscal_year_start_month NOT BETWEEN 1 AND 12
      OR plan.start_date < DATE '1970-01-01' OR effective_from < plan.start_date
      OR COALESCE(plan.end_date, effective_from) < effective_from
      OR (plan.status = 'CANCELLED' AND plan.end_date IS NULL)
    )
  """, dataset) INTO refused;
  IF refused IS NOT NULL THEN
    RAISE USING MESSAGE = CONCAT('Plan ', refused, ' is none that can be computed: see docs/saas.md');
  END IF;

  EXECUTE IMMEDIATE FORMAT("""
    INSERT INTO `%s.%s` (
      usage_date, subscription_id, plan_version, vendor, plan_name, category, status, pricing_model, seats,
      billing_cycle, term_start, term_end, term_days, charge_day, charge_amount, unit_price, list_cycle_cost,
      cycle_cost, daily_cost, total_cost, currency, fiscal_year, fiscal_half, fiscal_quarter, department,
      team, cost_center
    )
    WITH latest AS (
      SELECT *
      FROM `%s.saas_subscription_plans`
      WHERE TRUE
      QUALIFY ROW_NUMBER() OVER (
        PARTITION BY subscription_id, effective_from ORDER BY change_number DESC, plan_version DESC
      ) = 1
    ),
    -- Each row until its own end or the day the subscription's next one begins.
    segments AS (
      SELECT
        *,
        LEAST(
          COALESCE(
            LEAD(effective_from) OVER (PARTITION BY subscription_id ORDER BY effective_from),
            DATE '2500-01-01'
          ),
          COALESCE(DATE_ADD(plan.end_date, INTERVAL 1 DAY), DATE '2500-01-01')
        ) AS until,
        COALESCE(DATE_ADD(trial_end_date, INTERVAL 1 DAY), plan.start_date) AS paid_from,
        CASE billing_cycle
          WHEN 'monthly' THEN 1 WHEN 'quarterly' THEN 3 WHEN 'semi_annual' THEN 6 WHEN 'annual' THEN 12
        END AS months,
        IF(billing_cycle = 'weekly', 7, custom_days) AS step_days,
        CAST(unit_price * IF(pricing_model = 'PER_SEAT', seats, 1) AS NUMERIC) AS list_cost
      FROM latest AS plan
      WHERE plan.status != 'VOID'
    ),
    -- Months count from January 1900, whose 31 days hold every anchor: adding months to it clamps right.
    anchored AS (
      SELECT
        *,
        COALESCE(billing_anchor_day, EXTRACT(DAY FROM paid_from)) AS anchor,
        DATE_DIFF(paid_from, DATE '1900-01-01', MONTH) AS paid_month,
        CASE discount_type
          WHEN 'percent' THEN CAST(
            list_cost * CAST((100 - discount_value) * NUMERIC '0.01' AS NUMERIC) AS NUMERIC
          )
          WHEN 'fixed' THEN GREATEST(list_cost - discount_value, NUMERIC '0')
          ELSE list_cost
        END AS full_cost
      FROM segments
      WHERE effective_from < until AND effective_from <= @last_day AND until > @first_day
    ),
    phased AS (
      SELECT
        *,
        DATE(1900, 1, anchor) AS anchor_date,
        MOD(
          COALESCE(
            billing_anchor_month - 1,
            paid_month
              + IF(DATE_ADD(DATE(1900, 1, anchor), INTERVAL paid_month MONTH) < paid_from, 1, 0)
          ),
          months
        ) AS phase
      FROM anchored
    ),
    days AS (
      SELECT
        p.*,
        day,
        day < paid_from AS trial,
        DATE_DIFF(day, DATE '1900-01-01', MONTH)
          - IF(DATE_ADD(anchor_date, INTERVAL DATE_DIFF(day, DATE '1900-01-01', MONTH) MONTH) > day, 1, 0)
          AS anchor_month,
        DATE_DIFF(day, DATE '0001-01-01', MONTH) + 13 - fiscal_year_start_month AS fiscal_month
      FROM phased AS p
      CROSS JOIN UNNEST(GENERATE_DATE_ARRAY(
        GREATEST(effective_from, @first_day), LEAST(DATE_SUB(until, INTERVAL 1 DAY), @last_day)
      )) AS day
    ),
    terms AS (
      SELECT
        *,
        CASE
          WHEN trial THEN d.start_date
          WHEN months IS NULL THEN DATE_ADD(
            paid_from, INTERVAL DIV(DATE_DIFF(day, paid_from, DAY), step_days) * step_days DAY
          )
          ELSE DATE_ADD(anchor_date, INTERVAL anchor_month - MOD(anchor_month - phase, months) MONTH)
        END AS term_first,
        CASE
          WHEN trial THEN paid_from
          WHEN months IS NULL THEN DATE_ADD(
            paid_from, INTERVAL (DIV(DATE_DIFF(day, paid_from, DAY), step_days) + 1) * step_days DAY
          )
          ELSE DATE_ADD(anchor_date, INTERVAL anchor_month - MOD(anchor_month - phase, months) + months MONTH)
        END AS term_last,
        IF(trial, NUMERIC '0', list_cost) AS term_list_cost,
        IF(trial, NUMERIC '0', full_cost) AS term_cost
      FROM days AS d
    ),
    -- A charge covers the part of the term that this row of the plan is in force and paid for.
    stretches AS (
      SELECT
        *,
        DATE_DIFF(term_last, term_first, DAY) AS n,
        GREATEST(term_first, effective_from, IF(trial, term_first, paid_from)) AS charge_first,
        LEAST(term_last, until) AS charge_last,
        CAST(TRUNC(term_cost) AS INT64) AS cost_whole,
        CAST((term_cost - TRUNC(term_cost)) * 1000000000 AS INT64) AS cost_nanos
      FROM terms
    ),
    divided AS (
      SELECT
        *,
        DIV(cost_whole, n) AS whole,
        DIV((MOD(cost_whole, n) * 1000000000 + cost_nanos), n) AS nano,
        MOD((MOD(cost_whole, n) * 1000000000 + cost_nanos), n) AS rest,
        DATE_DIFF(day, term_first, DAY) AS before,
        DATE_DIFF(charge_first, term_first, DAY) AS charge_before,
        DATE_DIFF(charge_last, term_first, DAY) AS charge_through
      FROM stretches
    ),
    costs AS (
      SELECT
        *,
        CAST(whole AS NUMERIC) + CAST(
          nano + DIV((2 * rest * (before + 1) + n), (2 * n)) - DIV((2 * rest * before + n), (2 * n))
          AS NUMERIC
        ) * NUMERIC '0.000000001' AS cost,
        IF(day != charge_first, NUMERIC '0', CAST((charge_through - charge_before) * whole AS NUMERIC) + CAST(
          (charge_through - charge_before) * nano
            + DIV((2 * rest * charge_through + n), (2 * n)) - DIV((2 * rest * charge_before + n), (2 * n))
          AS NUMERIC
        ) * NUMERIC '0.000000001') AS charge
      FROM divided
    )
    SELECT
      day, subscription_id, plan_version, vendor, plan_name, category,
      CASE WHEN trial THEN 'TRIAL' WHEN term_cost = 0 THEN 'FREE' ELSE 'ACTIVE' END,
      pricing_model, seats, billing_cycle, term_first, term_last, n, day = charge_first,
      CAST(charge AS NUMERIC), unit_price, term_list_cost, term_cost, CAST(cost AS NUMERIC),
      CAST(cost AS NUMERIC), currency,
      DIV(fiscal_month, 12) + IF(fiscal_year_start_month > 1, 1, 0),
      DIV(MOD(fiscal_month, 12), 6) + 1, DIV(MOD(fiscal_month, 12), 3) + 1, department, team, cost_center
    FROM costs
  """, dataset, staging, dataset) USING start_date AS first_day, end_date AS last_day;
END;
