{#-
  Rows that violate a rule, with the rule's name. Rules of a single row that PostgreSQL enforces are
  constraints of the model; here are the ones that the roll-up must fulfil.

  Args:
      rules: SQL condition by name. Null counts as a violation.
-#}
{% test identities(model, rules) %}
with bars as (
    select * from {{ tested_rows(model) }}
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
