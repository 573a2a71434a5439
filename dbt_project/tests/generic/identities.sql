{#-
  Rows that break a rule, and which.

  Args:
      rules: SQL condition by name; a row must fulfil each. Null is a breach.
-#}
{% test identities(model, rules) %}
with bars as (
    select * from {{ tested_bars(model) }}
)

select
    broken.rule,
    bars.*
from bars
cross join lateral (
    {% for name, condition in rules.items() %}
    {{ 'values' if loop.first }} ('{{ name }}', {{ condition }}){{ ',' if not loop.last }}
    {% endfor %}
) as broken (rule, holds)
where broken.holds is not true
{% endtest %}
