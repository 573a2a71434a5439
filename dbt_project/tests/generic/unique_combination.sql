{#-
  Rows that share their values in the given columns.

  Args:
      tested: all for a relation that no cursor tells the last build of.
-#}
{% test unique_combination(model, combination, tested=none) %}
with bars as (
    select * from {{ model if tested == 'all' else tested_bars(model) }}
)

select
    {{ combination | join(', ') }},
    count(*) as row_count
from bars
group by {{ combination | join(', ') }}
having count(*) > 1
{% endtest %}
